"""Depthwise convolution into Haar coefficients in numba for float32 maps.

The work goes patch by patch. Where the taps of a patch all lie inside a channels_last map, they
read the map itself. At the border, and in a contiguous map, they read a copy of the pixels that
they reach, with zeros outside the map. Patches are independent and their sums have one order, so
results do not depend on the number of threads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..layout import padded_size
from .addresses import address, address_at, hold
from .depthwise_patch import Area, Averages, Filter, filter_patch
from .jit import jit
from .memory import address_of, as_map, empty, values_of
from .rows import copy_row
from .simd import LANES
from .threads import fork, thread_count
from .tiles import transpose_tile

__all__ = ['depthwise_haar']

# Values of a strip that are worked on at a time, in either memory format: measured.
_CHANNELS_LAST, _CONTIGUOUS = 102400, 1 << 16

_jit = jit(error_model='numpy')


class Cut(NamedTuple):
    """A map and how it is cut into strips, which are rows of patches.

    Attributes:
        channels_last: Its memory format.
        shape: Its shape (B, C, H, W).
        levels: Depth of the transform.
        length: How many patches a strip has, at most.
        block: How many channels are worked on at a time.
    """

    channels_last: bool
    shape: tuple[int, ...]
    levels: int
    length: int
    block: int


class Window(NamedTuple):
    """A part of an image, which may reach beyond it.

    Attributes:
        image: Number of the image.
        top: Its first line of pixels.
        left: Its first column of pixels.
        rows: Number of lines.
        cols: Number of columns.
    """

    image: int
    top: int
    left: int
    rows: int
    cols: int


@_jit
def _read(x, cut, window, channel, count, pixels):
    """Copy ``count`` channels of a window into ``pixels``, with zeros outside the map.

    ``channel`` is the first of them. Each pixel takes ``block`` values. A contiguous map has its
    channels a plane apart, so it is transposed in tiles of 8x8 as far as they fit.
    """
    (_, channels, height, width), block = cut.shape, cut.block
    image, top, left, rows, cols = window
    if top < 0 or left < 0 or top + rows > height or left + cols > width:
        pixels[:] = 0
    start, stop, plane = max(0, -left), min(cols, width - left), height * width
    for i in range(max(0, -top), min(rows, height - top)):
        if cut.channels_last:
            line = ((image * height + top + i) * width + left) * channels + channel
            for j in range(start, stop):
                copy_row(
                    address_at(address(x), line + j * channels),
                    address_at(address(pixels), (i * cols + j) * block),
                    count,
                )
        else:
            line = ((image * channels + channel) * height + top + i) * width + left
            tiled = start + (stop - start) // 8 * 8
            for n in range(0, count // 8 * 8, 8):
                for j in range(start, tiled, 8):
                    transpose_tile(
                        x, line + n * plane + j, plane, pixels, (i * cols + j) * block + n, block
                    )
            for n in range(count):
                for j in range(tiled if n < count // 8 * 8 else start, stop):
                    pixels[(i * cols + j) * block + n] = x[line + n * plane + j]


@_jit
def _depthwise_strips(begin, end, x, cut, taps, y, norms):
    """Filter and transform strips, a block of channels at a time.

    ``cut`` and ``taps`` are what :class:`Cut` and :class:`Filter` hold. ``y`` is the address of the
    coefficients.
    """
    cut, taps = Cut(*cut), Filter(*taps)
    _, channels, height, width = cut.shape
    side, area, block = 1 << cut.levels, 1 << 2 * cut.levels, cut.block
    margin = len(taps.dilation) * (len(taps.size) // 2)
    rows, cols = (height + side - 1) // side, (width + side - 1) // side
    strips = (cols + cut.length - 1) // cut.length
    lines, line = side + 2 * margin, cut.length * side + 2 * margin
    pixels = np.empty(lines * line * block, np.float32)
    even = np.empty(area // 4 * block, np.float32)
    odd = np.empty(max(1, area // 16) * block, np.float32)
    space = Averages(address(even), address(odd), block)
    for strip in range(begin, end):
        image, row = strip // (rows * strips), strip // strips % rows
        col = strip % strips * cut.length
        top, left, patches = row * side, col * side, min(cut.length, cols - col)
        window = Window(image, top - margin, left - margin, lines, line)
        first_place = ((image * rows + row) * cols + col) * area
        norms[first_place : first_place + patches * area] = 0
        direct = (
            cut.channels_last
            and top >= margin
            and left >= margin
            and top + side + margin <= height
            and left + patches * side + margin <= width
        )
        for channel in range(0, channels, block):
            count = min(block, channels - channel)
            source, across, down = address(pixels), block, line * block
            if direct:
                origin = (image * height + window.top) * width + window.left
                source = address_at(address(x), origin * channels + channel)
                across, down = channels, width * channels
            else:
                _read(x, cut, window, channel, count, pixels)
            for patch in range(patches):
                place, right = first_place + patch * area, left + patch * side
                corner = address_at(source, patch * side * across)
                filter_patch(
                    Area(corner, across, down, side, height - top, width - right),
                    taps,
                    channel,
                    count,
                    space,
                    address_at(y, place * channels + channel),
                    norms,
                    place,
                )
    hold((pixels, even, odd))


@_jit
def _depthwise_kernel(count, threads, *arguments):
    """Run :func:`_depthwise_strips` on all strips."""
    fork(_depthwise_strips, count, threads, arguments)


def _cut(x: Tensor, channels_last: bool, levels: int, margin: int) -> Cut:
    """Cut a map into strips that fit the cache, with the ``margin`` of pixels that taps reach."""
    channels, length = x.shape[1], 1 if channels_last else max(1, 32 >> levels)
    reach = ((1 << levels) + 2 * margin) * ((length << levels) + 2 * margin)
    room = (_CHANNELS_LAST if channels_last else _CONTIGUOUS) // reach // LANES
    block = LANES * min(-(-channels // LANES), max(1, room))
    return Cut(channels_last, tuple(x.shape), levels, length, block)


def depthwise_haar(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dilation: int,
    levels: int,
    low: float | None,
    high: float | None,
) -> tuple[Tensor, Tensor]:
    """Compute :func:`mmwcc.kernels.depthwise_haar` of a float32 map."""
    batch, channels, height, width = x.shape
    size = weight.shape[-1]
    x, channels_last = as_map(x)
    bias = x.new_zeros(channels) if bias is None else bias
    kernel = torch.cat([weight.reshape(channels, -1).t(), bias.reshape(1, -1)]).float()
    taps = Filter(
        address_of(kernel),
        channels,
        (0,) * size,
        (0,) * dilation,
        np.float32(-np.inf if low is None else low),
        np.float32(np.inf if high is None else high),
    )
    cut = _cut(x, channels_last, levels, dilation * (size // 2))
    padded_height, padded_width = padded_size(height, levels), padded_size(width, levels)
    count = batch * (padded_height >> levels) * -(-padded_width // (cut.length << levels))
    positions = padded_height * padded_width
    y, norms = empty((batch, positions, channels)), empty((batch, positions))
    _depthwise_kernel(
        count,
        thread_count(count),
        values_of(x),
        tuple(cut),  # numba recognizes plain tuples faster than named ones
        tuple(taps),
        address_of(y),
        values_of(norms),
    )
    return y, norms
