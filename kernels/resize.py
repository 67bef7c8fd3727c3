"""Bilinear resizing of maps of bytes, and of float32 planes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import accelerate
from .library import free, register

__all__ = ['channels_last_of', 'resize_map', 'resize_planes']


def _resize_map(levels: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    size = height, width
    resized = F.interpolate(levels.float(), size, mode='bilinear', align_corners=align_corners)
    return resized.round_().to(torch.uint8, memory_format=torch.channels_last)


def _resize_planes(x: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    size = height, width
    return F.interpolate(x.contiguous(), size, mode='bilinear', align_corners=align_corners)


def channels_last_of(levels: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return an empty map like another one, but channels_last and of another shape."""
    return levels.new_empty(shape).contiguous(memory_format=torch.channels_last)


def _like_map(levels, height, width, align_corners):
    return channels_last_of(levels, (*levels.shape[:2], height, width))


def _like_planes(x, height, width, align_corners):
    return x.new_empty((*x.shape[:2], height, width))


_SIZE = 'int height, int width, bool align_corners'
_map_op = register(
    f'resize_map(Tensor levels, {_SIZE}) -> Tensor', _resize_map, _like_map, cost=free
)
_planes_op = register(
    f'resize_planes(Tensor x, {_SIZE}) -> Tensor', _resize_planes, _like_planes, cost=free
)
accelerate('resize_map', 'resize', _resize_map, dtype=torch.uint8, paths=('cpu',))
accelerate('resize_planes', 'resize', _resize_planes, paths=('cpu',))


def resize_map(levels: Tensor, height: int, width: int, align_corners: bool = False) -> Tensor:
    """Resize a map of bytes bilinearly, as :func:`torch.nn.functional.interpolate` does.

    Args:
        levels: Bytes (B, C, H, W) on any grid, which the result keeps.
        height: New height.
        width: New width.
        align_corners: As in :func:`torch.nn.functional.interpolate`. Defaults to False.

    Returns:
        Bytes (B, C, height, width), channels_last.
    """
    return _map_op(levels, height, width, align_corners)


def resize_planes(x: Tensor, height: int, width: int, align_corners: bool = False) -> Tensor:
    """Resize a floating map bilinearly into planes, as they are read class by class.

    Args:
        x: Values (B, C, H, W), in any layout.
        height: New height.
        width: New width.
        align_corners: As in :func:`torch.nn.functional.interpolate`. Defaults to False.

    Returns:
        Values (B, C, height, width), contiguous.
    """
    return _planes_op(x, height, width, align_corners)
