"""The functions of torch that compute on 8-bit maps.

Each entry of :data:`FUNCTIONS` serves one function. It returns NotImplemented for arguments that it
does not serve. Every other function that :mod:`mmwcc.maps` knows is computed in floating point and
rounded to the grid of its result. All others, such as ``torch.linalg``, get and return float
tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmwcc import kernels
from mmwcc.maps import KEEPING, NEW_GRID, canonical_name, combined, tensors_in

from .quantized_map import QuantizedMap, Stored, dequantized

__all__ = ['FUNCTIONS', 'call']

_READING = frozenset({'get', 'size', 'dim', 'stride', 'numel', 'is_contiguous', 'len', 'type'})
_IN_PLACE_OPERATORS = frozenset({'__iadd__', '__imul__', '__isub__', '__itruediv__'})
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = dict(
    relu=F.relu, relu6=F.relu6, hardswish=F.hardswish, silu=F.silu
)


def _moved(func: Callable, stored: Stored | None, *args, **kwargs) -> Any:
    """Move or select bytes: the function runs on them as on any tensor."""
    source = args[0]
    if not isinstance(source, QuantizedMap):
        return NotImplemented
    result = func(source.levels, *args[1:], **kwargs)
    if isinstance(result, (tuple, list)):
        return type(result)(source.like(part) for part in result)
    return source.like(result)


def _pad(func: Callable, stored: Stored | None, x, pad, mode='constant', value=None) -> Any:
    """Pad with zeros, whose byte is the zero of the grid."""
    if mode != 'constant' or value not in (None, 0):
        return NotImplemented
    return x.like(F.pad(x.levels, pad, value=x.grid.zero))


def _interpolate(
    func: Callable,
    stored: Stored | None,
    input,
    size=None,
    scale_factor=None,
    mode='nearest',
    align_corners=None,
    recompute_scale_factor=None,
    antialias=False,
) -> Any:
    """Resize bytes. The result stays on the grid."""
    if mode == 'nearest':
        return input.like(F.interpolate(input.levels, size, scale_factor, mode))
    if mode != 'bilinear' or size is None or antialias:
        return NotImplemented
    height, width = (size, size) if isinstance(size, int) else (int(side) for side in size)
    return input.like(
        kernels.resize_map(input.levels, height, width, align_corners=bool(align_corners))
    )


def _add(func: Callable, stored: Stored | None, a, b, *, alpha=1) -> Any:
    """Add two maps of one shape."""
    maps = isinstance(a, QuantizedMap) and isinstance(b, QuantizedMap)
    if not maps or stored is None or alpha != 1 or a.levels.shape != b.levels.shape:
        return NotImplemented
    levels = kernels.add_maps(
        (a.levels, a.grid.step, a.grid.zero),
        (b.levels, b.grid.step, b.grid.zero),
        stored.activation == 'relu',
        *stored.grid.bytes,
    )
    return a.made(levels, stored)


def _cat(func: Callable, stored: Stored | None, tensors, dim=0) -> Any:
    """Concatenate maps as bytes, each on the grid of the result."""
    if stored is None:
        return NotImplemented
    grid = stored.grid
    parts = [x.on(grid) if isinstance(x, QuantizedMap) else grid.bytes_of(x) for x in tensors]
    source = next(x for x in tensors if isinstance(x, QuantizedMap))
    return source.made(torch.cat(parts, dim), stored)


FUNCTIONS: dict[str, Callable] = dict.fromkeys(
    (
        'chunk',
        'contiguous',
        'detach',
        'flatten',
        'getitem',
        'max_pool2d',
        'narrow',
        'permute',
        'pixel_shuffle',
        'reshape',
        'split',
        'squeeze',
        'transpose',
        'unflatten',
        'unsqueeze',
        'view',
    ),
    _moved,
) | dict(add=_add, cat=_cat, interpolate=_interpolate, pad=_pad)
"""What computes each function on bytes, by the function's name."""


@cache
def _name(func: Callable) -> str:
    return canonical_name(func)


def call(func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Compute a function of torch, of whose arguments at least one is a :class:`QuantizedMap`."""
    name = _name(func)
    if name in _READING:
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)
    if name == 'hardtanh':
        name = canonical_name(func, args, kwargs)
    result = _called(name, func, args, kwargs)
    if isinstance(result, QuantizedMap) and _in_place(func, kwargs) and args[0] is not result:
        return args[0].become(result) if isinstance(args[0], QuantizedMap) else result
    return result


def _called(name: str, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    read = tensors_in([args, kwargs])
    maps = [x for x in read if isinstance(x, QuantizedMap)]
    source = maps[0]
    if source.pending == name:
        return source.like(source.levels)
    _check_settled(maps, name)
    made = source.map_name
    if name in NEW_GRID:
        made = combined(name, [x.map_name if isinstance(x, QuantizedMap) else '' for x in read])
    stored = source.stored.get(made) if name in NEW_GRID else None
    if name in FUNCTIONS:
        result = FUNCTIONS[name](func, stored, *args, **kwargs)
        if result is not NotImplemented:
            return result
    result = func(*dequantized(args), **dequantized(kwargs))
    if name in KEEPING and isinstance(result, Tensor):
        return source.like(source.grid.bytes_of(result))
    if stored is None:
        return result
    if stored.activation:
        result = _ACTIVATIONS[stored.activation](result)
    return source.made(stored.grid.bytes_of(result), stored)


def _check_settled(maps: list[QuantizedMap], name: str) -> None:
    for source in maps:
        if source.pending:
            raise RuntimeError(
                f'QuantizedMap: {source.map_name!r} must be read by {source.pending} first, as '
                f'when the model was converted, got {name}. Convert the model again, with an input '
                'shape for which all of it runs.'
            )


def _in_place(func: Callable, kwargs: dict[str, Any]) -> bool:
    name = getattr(func, '__name__', '')
    if name.startswith('__'):
        return name in _IN_PLACE_OPERATORS
    return name.endswith('_') or bool(kwargs.get('inplace', False))
