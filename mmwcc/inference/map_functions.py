"""The functions of torch that compute on 8-bit maps."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmwcc.maps import KEEPING, NEW_GRID, canonical_name, combined, tensors_in

from .quantized_map import QuantizedMap, dequantized

__all__ = ['MOVING', 'call']

MOVING = frozenset(
    {
        'chunk',
        'contiguous',
        'detach',
        'dropout',
        'dropout2d',
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
    }
)
"""Functions that move or select values. They run on the bytes as they are."""

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = dict(
    relu=F.relu, relu6=F.relu6, hardswish=F.hardswish, silu=F.silu
)

_READS_ONLY = frozenset({'get', 'size', 'dim', 'stride', 'numel', 'is_contiguous', 'len', 'type'})


def _moved(func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Call a function on the bytes, and wrap what it returns."""
    source = args[0]
    result = func(source.levels, *args[1:], **kwargs)
    if isinstance(result, (tuple, list)):
        return type(result)(source.like(part) for part in result)
    return source.like(result)


def _rounded(result: Tensor, source: QuantizedMap, name: str) -> Any:
    """Store a float result on the grid of the map of this name, if it has one."""
    stored = source.stored.get(name)
    if stored is None:
        return result
    if stored.activation:
        result = _ACTIVATIONS[stored.activation](result)
    levels = stored.grid.bytes_of(result)
    return QuantizedMap(levels, stored.grid, stored.name, source.stored, stored.activation)


def _joined(maps: list[Tensor], dim: int, name: str, source: QuantizedMap) -> Any:
    """Concatenate maps as bytes, each on the grid of the result."""
    stored = source.stored.get(name)
    if stored is None:
        return torch.cat(dequantized(maps), dim)
    parts = [
        part.on(stored.grid) if isinstance(part, QuantizedMap) else stored.grid.bytes_of(part)
        for part in maps
    ]
    return QuantizedMap(torch.cat(parts, dim), stored.grid, name, source.stored)


def _activated(source: QuantizedMap, name: str) -> QuantizedMap | None:
    """Return a map without its pending activation, if ``name`` is that activation."""
    if source.pending != name:
        return None
    return QuantizedMap(source.levels, source.grid, source.map_name, source.stored)


def _check_settled(maps: list[QuantizedMap], name: str) -> None:
    for source in maps:
        if source.pending:
            raise RuntimeError(
                f'QuantizedMap: the map {source.map_name!r} must be read by {source.pending} first, as it '
                f'was when the model was calibrated, got {name}. Convert the model again, with images '
                'that run every part of it.'
            )


@cache
def _name(func: Callable) -> str:
    return canonical_name(func)


def call(func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Compute a function of torch, of whose arguments at least one is a :class:`QuantizedMap`."""
    name = _name(func)
    if name in _READS_ONLY:
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)
    if name in ('hardtanh', 'clamp'):
        name = canonical_name(func, args, kwargs)
    result = _called(name, func, args, kwargs)
    if _in_place(func, kwargs) and isinstance(args[0], QuantizedMap):
        return args[0].become(result) if isinstance(result, QuantizedMap) else result
    return result


def _called(name: str, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    read = tensors_in([args, kwargs])
    maps = [x for x in read if isinstance(x, QuantizedMap)]
    source = maps[0]
    activated = _activated(source, name)
    if activated is not None:
        return activated
    _check_settled(maps, name)
    if name in MOVING and source is args[0]:
        return _moved(func, args, kwargs)
    names = [x.map_name if isinstance(x, QuantizedMap) else '' for x in read]
    made = source.map_name if name in KEEPING else combined(name, names)
    if name == 'cat':
        return _joined(list(args[0]), kwargs.get('dim', args[1] if len(args) > 1 else 0), made, source)
    result = func(*dequantized(args), **dequantized(kwargs))
    if name in KEEPING and isinstance(result, Tensor):
        return source.like(source.grid.bytes_of(result))
    return _rounded(result, source, made) if name in NEW_GRID else result


def _in_place(func: Callable, kwargs: dict[str, Any]) -> bool:
    name = getattr(func, '__name__', '')
    stripped = name.removeprefix('__').removesuffix('__')
    operator = name.startswith('__') and stripped in ('iadd', 'imul', 'isub', 'itruediv')
    return operator or kwargs.get('inplace', False) or (not name.startswith('__') and name.endswith('_'))
