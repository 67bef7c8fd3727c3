"""Work on maps of bytes in numba: one pass over memory each."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .jit import jit
from .memory import array_of, empty, empty_like, values_of
from .threads import fork, thread_count

__all__ = ['add_maps', 'cat_maps', 'map_values', 'rescale_map', 'resize_map', 'round_map']

_CHUNK = 1 << 14  # values that a thread takes at a time
_jit = jit(error_model='numpy')
_inline = jit(error_model='numpy', forceinline=True)
_ZERO, _ONE = np.float32(0), np.float32(1)


@_inline
def _byte(value, grid):
    """Round a value to a grid of step, zero, lowest and highest level. NaN becomes 0."""
    step, zero, low, high = grid
    level = value / step
    level = low if level < low else level
    level = high if level > high else level
    return np.uint8(np.int32((np.rint(level) if level == level else _ZERO) + zero))


@_inline
def _part(begin, end, size):
    """Return the first value of a range of chunks and the one after the last.

    They are unsigned, so that numba does not look for negative indices.
    """
    return np.uintp(begin * _CHUNK), np.uintp(min(size, end * _CHUNK))


@_jit
def _round_chunks(begin, end, x, grid, y):
    first, last = _part(begin, end, len(x))
    for n in range(first, last):
        y[n] = _byte(x[n], grid)


@_jit
def _value_chunks(begin, end, levels, step, zero, y):
    first, last = _part(begin, end, len(levels))
    for n in range(first, last):
        y[n] = (np.float32(levels[n]) - zero) * step


@_jit
def _rescale_chunks(begin, end, levels, step, zero, grid, y):
    first, last = _part(begin, end, len(levels))
    for n in range(first, last):
        y[n] = _byte((np.float32(levels[n]) - zero) * step, grid)


@_jit
def _add_chunks(begin, end, a, b, scales, lowest, grid, y):
    """``lowest`` is 0 with ReLU, and minus infinity without."""
    a_step, a_zero, b_step, b_zero = scales
    first, last = _part(begin, end, len(a))
    for n in range(first, last):
        left = (np.float32(a[n]) - a_zero) * a_step
        right = (np.float32(b[n]) - b_zero) * b_step
        total = left + right
        y[n] = _byte(total if total > lowest else lowest, grid)


@_jit
def _cat_pixels(begin, end, levels, scale, grid, place, y):
    """Write the channels of one map into those of all, pixel by pixel.

    ``place`` holds the channels of the map, the channels of all, and which of these comes first.
    """
    step, zero, same = scale
    channels, total, offset = place
    for pixel in range(np.uintp(begin), np.uintp(end)):
        source, target = pixel * channels, pixel * total + offset
        for n in range(channels):
            level = levels[source + n]
            y[target + n] = level if same else _byte((np.float32(level) - zero) * step, grid)


@_inline
def _mix(levels, first, second, weight):
    """Return a value between two bytes."""
    return np.float32(levels[first]) * (_ONE - weight) + np.float32(levels[second]) * weight


@_jit
def _resize_lines(begin, end, levels, rows, columns, shape, y):
    """Interpolate lines of all images. ``rows`` and ``columns`` are indices and weights."""
    above, below, down = rows
    left, right, along = columns
    height, width, channels, new_height, new_width = shape
    for line in range(begin, end):
        image, row = line // new_height, line % new_height
        top = (image * height + above[row]) * width
        bottom = (image * height + below[row]) * width
        low = down[row]
        for column in range(new_width):
            after = along[column]
            a, b = (
                np.uintp((top + left[column]) * channels),
                np.uintp((top + right[column]) * channels),
            )
            c, d = (
                np.uintp((bottom + left[column]) * channels),
                np.uintp((bottom + right[column]) * channels),
            )
            target = np.uintp((line * new_width + column) * channels)
            for n in range(np.uintp(channels)):
                upper = _mix(levels, a + n, b + n, after)
                lower = _mix(levels, c + n, d + n, after)
                y[target + n] = np.uint8(np.int32(np.rint(upper * (_ONE - low) + lower * low)))


@_jit
def _round_kernel(count, threads, *arguments):
    fork(_round_chunks, count, threads, arguments)


@_jit
def _value_kernel(count, threads, *arguments):
    fork(_value_chunks, count, threads, arguments)


@_jit
def _rescale_kernel(count, threads, *arguments):
    fork(_rescale_chunks, count, threads, arguments)


@_jit
def _add_kernel(count, threads, *arguments):
    fork(_add_chunks, count, threads, arguments)


@_jit
def _cat_kernel(count, threads, *arguments):
    fork(_cat_pixels, count, threads, arguments)


@_jit
def _resize_kernel(count, threads, *arguments):
    fork(_resize_lines, count, threads, arguments)


def _dense(x: Tensor) -> Tensor:
    """Return a tensor without gaps in memory."""
    dense = x.is_contiguous() or (
        x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    )
    return x if dense else x.contiguous()


def _chunks(x: Tensor) -> tuple[int, int]:
    count = -(-x.numel() // _CHUNK)
    return count, thread_count(count)


def _grid(step: float, zero: int, low: int, high: int) -> tuple:
    return np.float32(step), np.float32(zero), np.float32(low - zero), np.float32(high - zero)


def round_map(x: Tensor, step: float, zero: int, low: int, high: int) -> Tensor:
    """Compute :func:`mmwcc.kernels.round_map`."""
    x = _dense(x)
    y = torch.empty_like(x, dtype=torch.uint8)
    _round_kernel(*_chunks(x), values_of(x), _grid(step, zero, low, high), values_of(y))
    return y


def map_values(levels: Tensor, step: float, zero: int) -> Tensor:
    """Compute :func:`mmwcc.kernels.map_values`."""
    levels = _dense(levels)
    y = empty_like(levels)
    _value_kernel(*_chunks(y), values_of(levels), np.float32(step), np.float32(zero), values_of(y))
    return y


def rescale_map(
    levels: Tensor, from_step: float, from_zero: int, step: float, zero: int, low: int, high: int
) -> Tensor:
    """Compute :func:`mmwcc.kernels.rescale_map`."""
    levels = _dense(levels)
    y = torch.empty_like(levels)
    _rescale_kernel(
        *_chunks(y),
        values_of(levels),
        np.float32(from_step),
        np.float32(from_zero),
        _grid(step, zero, low, high),
        values_of(y),
    )
    return y


def add_maps(
    a: Tensor,
    b: Tensor,
    a_step: float,
    a_zero: int,
    b_step: float,
    b_zero: int,
    relu: bool,
    *grid: Any,
) -> Tensor:
    """Compute :func:`mmwcc.kernels.add_maps`."""
    a = _dense(a)
    b = _dense(b)
    if b.stride() != a.stride():
        b = torch.empty_like(a).copy_(b)
    y = torch.empty_like(a)
    _add_kernel(
        *_chunks(y),
        values_of(a),
        values_of(b),
        tuple(np.float32(value) for value in (a_step, a_zero, b_step, b_zero)),
        np.float32(0 if relu else -np.inf),
        _grid(*grid),
        values_of(y),
    )
    return y


def cat_maps(
    first: Tensor, rest: list[Tensor], steps: list[float], zeros: list[int], *grid: Any
) -> Tensor:
    """Compute :func:`mmwcc.kernels.cat_maps`."""
    parts = [x.contiguous(memory_format=torch.channels_last) for x in (first, *rest)]
    widths = [x.shape[1] for x in parts]
    (batch, _, height, width), total = first.shape, sum(widths)
    y = empty((batch, height, width, total), torch.uint8)
    pixels, offset = batch * height * width, 0
    for x, step, zero, channels in zip(parts, steps, zeros, widths, strict=True):
        _cat_kernel(
            pixels,
            thread_count(pixels),
            values_of(x),
            (np.float32(step), np.float32(zero), (step, zero) == grid[:2]),
            _grid(*grid),
            (np.uintp(channels), np.uintp(total), np.uintp(offset)),
            array_of(y, (y.numel(),)),
        )
        offset += channels
    return y.permute(0, 3, 1, 2)


def _lines(size: int, new: int, align_corners: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, for each new line, the two old lines around it and the weight of the second."""
    if align_corners:
        scale = (size - 1) / (new - 1) if new > 1 else 0.0
        place = np.arange(new, dtype=np.float32) * np.float32(scale)
    else:
        middle = np.arange(new, dtype=np.float32) + np.float32(0.5)
        place = np.maximum(np.float32(size / new) * middle - np.float32(0.5), np.float32(0))
    first = place.astype(np.int64)
    second = np.minimum(first + 1, size - 1)
    return first, second, place - first.astype(np.float32)


def resize_map(levels: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    """Compute :func:`mmwcc.kernels.resize_map`, with at most one level's difference at ties."""
    levels = levels.contiguous(memory_format=torch.channels_last)
    batch, channels, old_height, old_width = levels.shape
    y = empty((batch, height, width, channels), torch.uint8)
    count = batch * height
    _resize_kernel(
        count,
        thread_count(count),
        values_of(levels),
        _lines(old_height, height, align_corners),
        _lines(old_width, width, align_corners),
        (old_height, old_width, channels, height, width),
        array_of(y, (y.numel(),)),
    )
    return y.permute(0, 3, 1, 2)
