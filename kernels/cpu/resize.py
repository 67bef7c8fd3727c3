"""Bilinear resizing in numba: of maps of bytes, and of float32 planes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .byte_grid import byte_of, grid_of
from .jit import jit
from .memory import array_of, empty, values_of
from .simd import LANES, load, splat, stream
from .threads import fork, thread_count

__all__ = ['resize_into', 'resize_map', 'resize_planes']

_jit = jit(error_model='numpy')
_inline = jit(error_model='numpy', forceinline=True)
_ONE = np.float32(1)


@_jit
def _byte_lines(begin, end, levels, rows, columns, shape, scale, grid, y):
    """Write new lines of all images: a line between two old ones first, then its pixels.

    ``rows`` and ``columns`` are indices and weights. ``shape`` holds height and width of the map,
    its channels, the new height and width, the channels of a pixel of ``y``, and which of these
    comes first. ``scale`` is the step and zero of the map, and whether they are those of ``grid``.
    """
    above, below, down = rows
    left, right, along = columns
    height, width, channels, new_height, new_width, total, offset = shape
    step, zero, same = scale
    between = np.empty(width * channels, np.float32)
    for line in range(begin, end):
        image, row = line // new_height, line % new_height
        top = np.uintp((image * height + above[row]) * width * channels)
        bottom = np.uintp((image * height + below[row]) * width * channels)
        low = down[row]
        for n in range(np.uintp(width * channels)):
            upper, lower = np.float32(levels[top + n]), np.float32(levels[bottom + n])
            between[n] = upper * (_ONE - low) + lower * low
        for column in range(new_width):
            a, b = np.uintp(left[column] * channels), np.uintp(right[column] * channels)
            after = along[column]
            target = np.uintp((line * new_width + column) * total + offset)
            for n in range(np.uintp(channels)):
                level = np.rint(between[a + n] * (_ONE - after) + between[b + n] * after)
                y[target + n] = (
                    np.uint8(np.int32(level)) if same else byte_of((level - zero) * step, grid)
                )


@_inline
def _stretch(x, first, stride, columns, line):
    """Interpolate a line of values, which begins at ``first``, to a new width."""
    left, right, along = columns
    for n in range(len(line)):
        a, b = x[first + left[n] * stride], x[first + right[n] * stride]
        line[n] = a * (_ONE - along[n]) + b * along[n]


@_inline
def _mix(upper, lower, weight, y, target):
    """Write a line between two lines, past the cache if it begins at a cache line.

    Planes are large, and nothing reads them soon. With 11 planes of 512x1024, this saves a third.
    """
    keep, whole = _ONE - weight, len(upper) if len(upper) % LANES == 0 else 0
    for n in range(0, whole, LANES):
        above, below = load(upper, n, None), load(lower, n, None)
        stream(y, target + n, above * splat(keep) + below * splat(weight))
    for n in range(whole, len(upper)):
        y[target + n] = upper[n] * keep + lower[n] * weight


@_jit
def _plane_lines(begin, end, x, strides, rows, columns, shape, y):
    """Write new lines of all planes. Old lines are stretched once for all lines between them.

    ``strides`` are those from image to image, plane to plane, line to line and pixel to pixel.
    ``shape`` holds the planes of an image, and the new height and width.
    """
    image, plane, following, pixel = strides
    above, below, down = rows
    planes, new_height, new_width = shape
    upper, lower = np.empty(new_width, np.float32), np.empty(new_width, np.float32)
    in_upper = in_lower = -1
    for line in range(begin, end):
        number, row = line // new_height, line % new_height
        start = number // planes * image + number % planes * plane
        top, bottom = start + above[row] * following, start + below[row] * following
        if top == in_lower:
            upper, lower = lower, upper
            in_upper, in_lower = in_lower, in_upper
        if top != in_upper:
            _stretch(x, top, pixel, columns, upper)
            in_upper = top
        if bottom != in_lower:
            _stretch(x, bottom, pixel, columns, lower)
            in_lower = bottom
        _mix(upper, lower, down[row], y, line * new_width)


@_jit
def _byte_kernel(count, threads, *arguments):
    fork(_byte_lines, count, threads, arguments)


@_jit
def _plane_kernel(count, threads, *arguments):
    fork(_plane_lines, count, threads, arguments)


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


def resize_into(
    y: Tensor, offset: int, levels: Tensor, align_corners: bool, scale: tuple, grid: tuple
) -> None:
    """Write a map, resized, into channels of another one.

    Args:
        y: Bytes (B, H, W, channels of all), contiguous.
        offset: The first of the channels that are written.
        levels: Bytes (B, C, H', W'), channels_last.
        align_corners: As in :func:`torch.nn.functional.interpolate`.
        scale: Step and zero of the map, and whether they are those of the grid.
        grid: What the results are rounded to, see :func:`grid_of`.
    """
    batch, channels, old_height, old_width = levels.shape
    _, height, width, total = y.shape
    count = batch * height
    _byte_kernel(
        count,
        thread_count(count),
        values_of(levels),
        _lines(old_height, height, align_corners),
        _lines(old_width, width, align_corners),
        (old_height, old_width, channels, height, width, total, offset),
        scale,
        grid,
        array_of(y, (y.numel(),)),
    )


def resize_map(levels: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    """Compute :func:`mmwcc.kernels.resize_map`, with at most one level's difference at ties."""
    levels = levels.contiguous(memory_format=torch.channels_last)
    y = empty((len(levels), height, width, levels.shape[1]), torch.uint8)
    scale = np.float32(1), np.float32(0), True
    resize_into(y, 0, levels, align_corners, scale, grid_of(1, 0, 0, 255))
    return y.permute(0, 3, 1, 2)


def resize_planes(x: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    """Compute :func:`mmwcc.kernels.resize_planes`, as exactly as torch."""
    batch, planes, old_height, old_width = x.shape
    y = empty((batch, planes, height, width))
    extent = 1 + sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True))
    count = batch * planes * height
    _plane_kernel(
        count,
        thread_count(count),
        array_of(x, (extent,)),
        x.stride(),
        _lines(old_height, height, align_corners),
        _lines(old_width, width, align_corners),
        (planes, height, width),
        values_of(y),
    )
    return y
