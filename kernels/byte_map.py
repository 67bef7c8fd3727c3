"""Work on maps of bytes: rounding, values, means, sums and concatenation.

A byte stands for ``step * (byte - zero)``. Unsigned levels are stored as they are, with zero 0, and
signed ones 128 higher. All arithmetic is in float32, rounded half to even.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .dispatch import accelerate
from .library import free, register
from .resize import channels_last_of, resize_map

__all__ = ['add_maps', 'cat_maps', 'map_values', 'mean_map', 'rescale_map', 'round_map']


def _bytes(values: Tensor, step: float, zero: int, low: int, high: int) -> Tensor:
    levels = (values / step).clamp_(low - zero, high - zero).round_().nan_to_num_(0.0)
    return levels.add_(zero).to(torch.uint8)


def _round(x: Tensor, step: float, zero: int, low: int, high: int) -> Tensor:
    return _bytes(x.float(), step, zero, low, high)


def _values(levels: Tensor, step: float, zero: int) -> Tensor:
    return levels.float().sub_(zero).mul_(step)


def _mean(levels: Tensor, step: float, zero: int) -> Tensor:
    count = levels.shape[2] * levels.shape[3]
    means = levels.sum((2, 3), keepdim=True, dtype=torch.int64).double() / count
    return ((means - zero) * step).float()


def _rescale(
    levels: Tensor, from_step: float, from_zero: int, step: float, zero: int, low: int, high: int
) -> Tensor:
    return _bytes(_values(levels, from_step, from_zero), step, zero, low, high)


def _add(
    a: Tensor,
    b: Tensor,
    a_step: float,
    a_zero: int,
    b_step: float,
    b_zero: int,
    relu: bool,
    step: float,
    zero: int,
    low: int,
    high: int,
) -> Tensor:
    total = _values(a, a_step, a_zero).add_(_values(b, b_step, b_zero))
    return _bytes(total.relu_() if relu else total, step, zero, low, high)


def _cat(
    first: Tensor,
    rest: list[Tensor],
    steps: list[float],
    zeros: list[int],
    step: float,
    zero: int,
    low: int,
    high: int,
    height: int,
    width: int,
    align_corners: bool,
) -> Tensor:
    resized = [
        x if x.shape[2:] == (height, width) else resize_map(x, height, width, align_corners)
        for x in (first, *rest)
    ]
    scales = zip(resized, steps, zeros, strict=True)
    parts = [
        levels if (own, at) == (step, zero) else _rescale(levels, own, at, step, zero, low, high)
        for levels, own, at in scales
    ]
    return torch.cat(parts, 1).contiguous(memory_format=torch.channels_last)


def _like_bytes(x, *rest):
    return torch.empty_like(x, dtype=torch.uint8)


def _like_values(levels, *rest):
    return torch.empty_like(levels, dtype=torch.float32)


def _like_means(levels, step, zero):
    return levels.new_empty((*levels.shape[:2], 1, 1), dtype=torch.float32)


def _like_joined(first, rest, *others):
    channels = first.shape[1] + sum(levels.shape[1] for levels in rest)
    return channels_last_of(first, (len(first), channels, *others[6:8]))


_GRID = 'float step, int zero, int low, int high'
_round_op = register(f'round_map(Tensor x, {_GRID}) -> Tensor', _round, _like_bytes, cost=free)
_values_op = register(
    'map_values(Tensor levels, float step, int zero) -> Tensor', _values, _like_values, cost=free
)
_rescale_op = register(
    f'rescale_map(Tensor levels, float from_step, int from_zero, {_GRID}) -> Tensor',
    _rescale,
    _like_bytes,
    cost=free,
)
_mean_op = register(
    'mean_map(Tensor levels, float step, int zero) -> Tensor', _mean, _like_means, cost=free
)
_add_op = register(
    'add_maps(Tensor a, Tensor b, float a_step, int a_zero, float b_step, int b_zero, bool relu, '
    f'{_GRID}) -> Tensor',
    _add,
    _like_bytes,
    cost=free,
)
_cat_op = register(
    f'cat_maps(Tensor first, Tensor[] rest, float[] steps, int[] zeros, {_GRID}, '
    'int height, int width, bool align_corners) -> Tensor',
    _cat,
    _like_joined,
    cost=free,
)
accelerate('round_map', 'byte_map', _round, paths=('cpu',))
for _name, _reference in dict(
    map_values=_values,
    rescale_map=_rescale,
    add_maps=_add,
    cat_maps=_cat,
    mean_map=_mean,
).items():
    accelerate(_name, 'byte_map', _reference, dtype=torch.uint8, paths=('cpu',))


def round_map(x: Tensor, step: float, zero: int, low: int, high: int) -> Tensor:
    """Round floating values to bytes.

    Args:
        x: Values, any shape and floating dtype.
        step: Distance between two levels.
        zero: The byte that stands for 0.
        low: Lowest byte.
        high: Highest byte.

    Returns:
        ``clamp(round(x / step) + zero, low, high)``, uint8, in the layout of ``x``. NaN becomes
        ``zero``.
    """
    return _round_op(x, step, zero, low, high)


def map_values(levels: Tensor, step: float, zero: int) -> Tensor:
    """Return the float32 values that bytes stand for, in their layout."""
    return _values_op(levels, step, zero)


def rescale_map(
    levels: Tensor, from_step: float, from_zero: int, step: float, zero: int, low: int, high: int
) -> Tensor:
    """Round the values of bytes on one grid to another grid; see :func:`round_map`."""
    return _rescale_op(levels, from_step, from_zero, step, zero, low, high)


def mean_map(levels: Tensor, step: float, zero: int) -> Tensor:
    """Return the mean of each channel of a map of bytes (B, C, H, W), float32 (B, C, 1, 1)."""
    return _mean_op(levels, step, zero)


def add_maps(
    a: tuple[Tensor, float, int],
    b: tuple[Tensor, float, int],
    relu: bool,
    step: float,
    zero: int,
    low: int,
    high: int,
) -> Tensor:
    """Add two maps of one shape and round the sum.

    Args:
        a: Bytes, their step and their zero.
        b: The same for the other map.
        relu: Whether negative sums become 0.
        step: As in :func:`round_map`, like the arguments after it.
        zero: Likewise.
        low: Likewise.
        high: Likewise.

    Returns:
        The bytes of the sum, in the layout of ``a``.
    """
    return _add_op(a[0], b[0], *a[1:], *b[1:], relu, step, zero, low, high)


def cat_maps(
    maps: Sequence[tuple[Tensor, float, int]],
    step: float,
    zero: int,
    low: int,
    high: int,
    size: tuple[int, int] | None = None,
    align_corners: bool = False,
) -> Tensor:
    """Concatenate maps (B, C, H, W) along their channels, each rounded to one grid.

    A map of another size is resized first, as by :func:`resize_map`.

    Args:
        maps: Bytes, their step and their zero, for each map.
        step: As in :func:`round_map`, like the arguments after it. A map with this step and zero is
            copied.
        zero: Likewise.
        low: Likewise.
        high: Likewise.
        size: Height and width of the result. Defaults to those of the first map.
        align_corners: As in :func:`torch.nn.functional.interpolate`. Defaults to False.

    Returns:
        The bytes (B, sum of C, H, W), channels_last.
    """
    (first, *rest), steps, zeros = zip(*maps, strict=True)
    height, width = first.shape[2:] if size is None else size
    grid = step, zero, low, high
    return _cat_op(first, rest, steps, zeros, *grid, height, width, align_corners)
