"""The functions of torch that compute on 8-bit maps.

Each entry of :data:`FUNCTIONS` serves one function. It returns NotImplemented for arguments that it
does not serve. Every other function that :mod:`mmwcc.maps` knows is computed in floating point and
rounded to the grid of its result. All others, such as ``torch.linalg``, get and return float
tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from inspect import Signature, signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmwcc import kernels
from mmwcc.maps import (
    KEEPING,
    NAMED_BY_ARGUMENTS,
    NEW_GRID,
    canonical_name,
    combined,
    tensors_in,
)

from .quantized_map import Grid, QuantizedMap, Stored, dequantized

__all__ = ['FUNCTIONS', 'call']

_READING = frozenset({'get', 'size', 'dim', 'stride', 'numel', 'is_contiguous', 'len', 'type'})
_IN_PLACE_OPERATORS = frozenset(
    f'__i{operator}__' for operator in ('add', 'sub', 'mul', 'truediv', 'div', 'floordiv', 'pow')
)
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = dict(
    relu=F.relu, relu6=F.relu6, hardswish=F.hardswish, silu=F.silu
)


def _moved(func: Callable, stored: Stored | None, input, *args, **kwargs) -> Any:
    """Move or select bytes: the function runs on them as on any tensor."""
    if not isinstance(input, QuantizedMap):
        return NotImplemented
    result = func(input.levels, *args, **kwargs)
    if isinstance(result, (tuple, list)):
        return type(result)(input.like(part) for part in result)
    return input.like(result)


def _max_pool2d(func: Callable, stored: Stored | None, input, *args, **kwargs) -> Any:
    """Pool bytes as floats, because torch pools bytes of small maps only."""
    return input.like(func(input.levels.float(), *args, **kwargs).to(torch.uint8))


def _dropout(func: Callable, stored: Stored | None, input, p=0.5, training=True, inplace=False):
    return NotImplemented if training else input.like(input.levels)


def _mean(func: Callable, stored: Stored | None, input, output_size) -> Any:
    """Average the bytes of each channel. The few values that are left stay in floating point."""
    if output_size not in (1, (1, 1), [1, 1]) or input.dim() != 4:
        return NotImplemented
    return kernels.mean_map(input.levels, input.grid.step, input.grid.zero)


def _positive(func: Callable, stored: Stored | None, *args, **kwargs) -> Any:
    """Return the same map, for sums with 0 and products with 1."""
    source = next(x for x in tensors_in([args, kwargs]) if isinstance(x, QuantizedMap))
    return source.like(source.levels)


def _pad(func: Callable, stored: Stored | None, input, pad, mode='constant', value=None) -> Any:
    """Pad with zeros, whose byte is the zero of the grid."""
    if mode != 'constant' or value not in (None, 0):
        return NotImplemented
    return input.like(F.pad(input.levels, pad, value=input.grid.zero))


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
    if antialias or recompute_scale_factor:
        return NotImplemented
    if mode == 'nearest':
        return input.like(F.interpolate(input.levels, size, scale_factor, mode))
    if mode != 'bilinear' or size is None:
        return NotImplemented
    height, width = (size, size) if isinstance(size, int) else (int(side) for side in size)
    return input.like(
        kernels.resize_map(input.levels, height, width, align_corners=bool(align_corners))
    )


def _add(func: Callable, stored: Stored | None, input, other, *, alpha=1) -> Any:
    """Add two maps of one shape."""
    maps = isinstance(input, QuantizedMap) and isinstance(other, QuantizedMap)
    if not maps or stored is None or alpha != 1 or input.levels.shape != other.levels.shape:
        return NotImplemented
    levels = kernels.add_maps(
        (input.levels, input.grid.step, input.grid.zero),
        (other.levels, other.grid.step, other.grid.zero),
        stored.activation == 'relu',
        *stored.grid.bytes,
    )
    return input.made(levels, stored)


def _cat(func: Callable, stored: Stored | None, tensors, dim=0) -> Any:
    """Concatenate maps as bytes, each on the grid of the result."""
    if stored is None:
        return NotImplemented
    grid = stored.grid
    source = next(x for x in tensors if isinstance(x, QuantizedMap))
    if source.dim() == 4 and dim in (1, -3):
        maps = [_with_scale(x, grid) for x in tensors]
        return source.made(kernels.cat_maps(maps, *grid.bytes), stored)
    parts = [x.on(grid) if isinstance(x, QuantizedMap) else grid.bytes_of(x) for x in tensors]
    return source.made(torch.cat(parts, dim), stored)


def _with_scale(x: Tensor, grid: Grid) -> tuple[Tensor, float, int]:
    """Return bytes with their step and zero, on ``grid`` if they have no scale of their own."""
    if isinstance(x, QuantizedMap) and x.grid is not None and x.grid.bytes[:2] != grid.bytes[:2]:
        return x.levels, x.grid.step, x.grid.zero
    levels = x.on(grid) if isinstance(x, QuantizedMap) else grid.bytes_of(x)
    return levels, grid.step, grid.zero


def _setitem(func: Callable, stored: Stored | None, input, index, value) -> Any:
    """Write into a map, which then holds float values."""
    if not isinstance(input, QuantizedMap):
        return NotImplemented
    values = input.dequantize()
    func(values, dequantized(index), dequantized(value))
    input.become(values)
    return None


FUNCTIONS: dict[str, Callable] = dict.fromkeys(
    (
        'chunk',
        'clone',
        'contiguous',
        'detach',
        'flatten',
        'getitem',
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
) | dict(
    adaptive_avg_pool2d=_mean,
    add=_add,
    cat=_cat,
    dropout=_dropout,
    dropout2d=_dropout,
    interpolate=_interpolate,
    max_pool2d=_max_pool2d,
    pad=_pad,
    positive=_positive,
    setitem=_setitem,
)
"""What computes each function on bytes, by the function's name."""


@cache
def _name(func: Callable) -> str:
    return canonical_name(func)


@cache
def _parameters(name: str) -> Signature:
    return signature(FUNCTIONS[name])


def _serves(name: str, args: tuple, kwargs: dict[str, Any]) -> bool:
    """Tell whether an entry of :data:`FUNCTIONS` has the arguments of a call."""
    if name not in FUNCTIONS:
        return False
    try:
        _parameters(name).bind(None, None, *args, **kwargs)
    except TypeError:
        return False
    return True


def call(func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Compute a function of torch, of whose arguments at least one is a :class:`QuantizedMap`."""
    name = _name(func)
    if name in _READING:
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)
    if name in NAMED_BY_ARGUMENTS:
        name = canonical_name(func, args, kwargs)
    result = _called(name, func, args, kwargs)
    target = _target(func, args, kwargs)
    if isinstance(target, QuantizedMap) and isinstance(result, Tensor):
        return target if result is target else target.become(result)
    return result


def _called(name: str, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    read = tensors_in([args, kwargs])
    maps = [x for x in read if isinstance(x, QuantizedMap)]
    source = maps[0]
    if source.pending == name:
        return source.levels if source.grid is None else source.like(source.levels)
    for x in maps:
        x.check_settled(name)
    if any(x.grid is None for x in maps):
        return func(*dequantized(args), **dequantized(kwargs))
    made = source.map_name
    if name in NEW_GRID:
        made = combined(name, [x.map_name if isinstance(x, QuantizedMap) else '' for x in read])
    stored = source.stored.get(made) if name in NEW_GRID else None
    if _serves(name, args, kwargs):
        result = FUNCTIONS[name](func, stored, *args, **kwargs)
        if result is not NotImplemented:
            return result
    result = func(*dequantized(args), **dequantized(kwargs))
    if name in KEEPING and isinstance(result, Tensor):
        assert source.grid is not None, 'maps without a grid were served above'
        return source.like(source.grid.bytes_of(result))
    if stored is None:
        return result
    if stored.activation:
        result = _ACTIVATIONS[stored.activation](result)
    return source.made(stored.grid.bytes_of(result), stored)


def _target(func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Return the tensor that a function changes, or None."""
    name = getattr(func, '__name__', '')
    dunder = name.startswith('__')
    if name in _IN_PLACE_OPERATORS or kwargs.get('inplace') or (name[-1:] == '_' and not dunder):
        return args[0] if args else kwargs.get('input')
    return kwargs.get('out')
