"""Work on maps of bytes in numba: one pass over memory each."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .byte_grid import byte_of, grid_of
from .jit import jit
from .memory import array_of, empty, empty_like, values_of
from .resize import resize_into
from .threads import fork, thread_count

__all__ = ['add_maps', 'cat_maps', 'map_values', 'mean_map', 'rescale_map', 'round_map']

_CHUNK = 1 << 14  # values that a thread takes at a time
_jit = jit(error_model='numpy')
_inline = jit(error_model='numpy', forceinline=True)
_STRIP = 64  # channels whose bytes are added at a time: a cache line


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
        y[n] = byte_of(x[n], grid)


@_jit
def _value_chunks(begin, end, levels, step, zero, y):
    first, last = _part(begin, end, len(levels))
    for n in range(first, last):
        y[n] = (np.float32(levels[n]) - zero) * step


@_jit
def _rescale_chunks(begin, end, levels, step, zero, grid, y):
    first, last = _part(begin, end, len(levels))
    for n in range(first, last):
        y[n] = byte_of((np.float32(levels[n]) - zero) * step, grid)


@_jit
def _add_chunks(begin, end, a, b, scales, lowest, grid, y):
    """``lowest`` is 0 with ReLU, and minus infinity without."""
    a_step, a_zero, b_step, b_zero = scales
    first, last = _part(begin, end, len(a))
    for n in range(first, last):
        left = (np.float32(a[n]) - a_zero) * a_step
        right = (np.float32(b[n]) - b_zero) * b_step
        total = left + right
        y[n] = byte_of(total if total > lowest else lowest, grid)


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
            y[target + n] = level if same else byte_of((np.float32(level) - zero) * step, grid)


@_jit
def _mean_strips(begin, end, levels, shape, scale, y):
    """Average the values of strips of channels over all pixels of an image."""
    pixels, channels = shape
    step, zero = scale
    strips = (channels + _STRIP - 1) // _STRIP
    for strip in range(begin, end):
        image, first = strip // strips, strip % strips * _STRIP
        width = min(_STRIP, channels - first)
        sums = np.zeros(_STRIP, np.int64)
        for pixel in range(pixels):
            place = np.uintp((image * pixels + pixel) * channels + first)
            for n in range(np.uintp(width)):
                sums[n] += levels[place + n]
        for n in range(width):
            y[image * channels + first + n] = (sums[n] / pixels - zero) * step


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
def _mean_kernel(count, threads, *arguments):
    fork(_mean_strips, count, threads, arguments)


@_jit
def _cat_kernel(count, threads, *arguments):
    fork(_cat_pixels, count, threads, arguments)


def _dense(x: Tensor) -> Tensor:
    """Return a tensor without gaps in memory."""
    dense = x.is_contiguous() or (
        x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    )
    return x if dense else x.contiguous()


def _chunks(x: Tensor) -> tuple[int, int]:
    count = -(-x.numel() // _CHUNK)
    return count, thread_count(count)


def round_map(x: Tensor, step: float, zero: int, low: int, high: int) -> Tensor:
    """Compute :func:`mmwcc.kernels.round_map`."""
    x = _dense(x)
    y = torch.empty_like(x, dtype=torch.uint8)
    _round_kernel(*_chunks(x), values_of(x), grid_of(step, zero, low, high), values_of(y))
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
        grid_of(step, zero, low, high),
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
        grid_of(*grid),
        values_of(y),
    )
    return y


def mean_map(levels: Tensor, step: float, zero: int) -> Tensor:
    """Compute :func:`mmwcc.kernels.mean_map`."""
    levels = levels.contiguous(memory_format=torch.channels_last)
    batch, channels, height, width = levels.shape
    y = torch.empty((batch, channels, 1, 1))
    count = batch * -(-channels // _STRIP)
    _mean_kernel(
        count,
        thread_count(count),
        values_of(levels),
        (height * width, channels),
        (float(step), float(zero)),
        values_of(y),
    )
    return y


def cat_maps(
    first: Tensor, rest: list[Tensor], steps: list[float], zeros: list[int], *grid_and_size: Any
) -> Tensor:
    """Compute :func:`mmwcc.kernels.cat_maps`."""
    *grid, height, width, align_corners = grid_and_size
    parts = [x.contiguous(memory_format=torch.channels_last) for x in (first, *rest)]
    widths = [x.shape[1] for x in parts]
    batch, total = len(first), sum(widths)
    y = empty((batch, height, width, total), torch.uint8)
    pixels, offset = batch * height * width, 0
    for x, step, zero, channels in zip(parts, steps, zeros, widths, strict=True):
        same = [step, zero] == grid[:2]
        scale = np.float32(step), np.float32(zero), same
        if x.shape[2:] == (height, width):
            _cat_kernel(
                pixels,
                thread_count(pixels),
                values_of(x),
                scale,
                grid_of(*grid),
                (np.uintp(channels), np.uintp(total), np.uintp(offset)),
                array_of(y, (y.numel(),)),
            )
        else:
            resize_into(y, offset, x, align_corners, scale, grid_of(*grid))
        offset += channels
    return y.permute(0, 3, 1, 2)
