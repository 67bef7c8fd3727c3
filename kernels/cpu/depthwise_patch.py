"""A depthwise convolution of one patch into Haar coefficients in numba, vectorized over channels.

For 16 channels at a time, the four pixels of a cell of the finest level are filtered in registers
and leave as coefficients. Deeper levels transform the averages. All places are addresses.

The size of the kernel and its dilation come as the lengths of tuples. Numba knows those when it
compiles, so it unrolls the loops over taps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .addresses import address_at
from .cells import add_squares, cell_at, split_cell
from .jit import jit
from .rows import clear_row, copy_row, square_row
from .simd import LANES, clamp, first_lanes, load, only, splat, store, total

__all__ = ['Area', 'Averages', 'Filter', 'filter_patch']

_ZERO = np.float32(0)
_inline = jit(error_model='numpy', forceinline=True)


class Filter(NamedTuple):
    """A depthwise kernel and what follows it.

    Attributes:
        values: Address of the kernel: a row of channels for each tap, and at last the bias.
        channels: Number of channels.
        size: A tuple as long as the kernel is wide and high.
        dilation: A tuple as long as the distance between two taps in pixels.
        low: Lower bound of filtered pixels.
        high: Upper bound of filtered pixels.
    """

    values: np.uintp
    channels: int
    size: tuple[int, ...]
    dilation: tuple[int, ...]
    low: np.float32
    high: np.float32


class Area(NamedTuple):
    """The pixels of a patch in one block of channels.

    Attributes:
        corner: Address of the pixel that the first tap of the upper left pixel reads.
        across: How far apart the pixels of a line are, in values.
        down: How far apart its lines are, in values.
        side: Width and height in pixels.
        rows: How many lines the map has from there on.
        cols: How many columns it has from there on.
    """

    corner: np.uintp
    across: int
    down: int
    side: int
    rows: int
    cols: int


class Averages(NamedTuple):
    """Scratch memory for the averages of two levels, which take turns.

    Attributes:
        even: Address of the averages of the finest level.
        odd: Address of those of the next level.
        block: How far apart two averages are, in values.
    """

    even: np.uintp
    odd: np.uintp
    block: int


@_inline
def _tap(taps, channel, n, mask):
    """Return 16 channels of tap ``n``, or of the bias, which follows the last tap."""
    return load(taps.values, n * taps.channels + channel, mask)


@_inline
def _filter(pixels, taps, channel, mask):
    """Filter the 2x2 pixels whose first taps read the cell ``pixels``, for 16 channels.

    ``pixels`` is the address of the upper left one and how far the others are to the right and
    down.
    """
    corner, across, down = pixels
    size, dilation = len(taps.size), len(taps.dilation)
    a = _tap(taps, channel, size * size, mask)  # the bias
    b, c, d = a, a, a
    for i in range(size):
        for j in range(size):
            tap = _tap(taps, channel, i * size + j, mask)
            place = dilation * (i * down + j * across)
            a = a + tap * load(corner, place, mask)
            b = b + tap * load(corner, place + across, mask)
            c = c + tap * load(corner, place + down, mask)
            d = d + tap * load(corner, place + down + across, mask)
    low, high = splat(taps.low), splat(taps.high)
    return clamp(a, low, high), clamp(b, low, high), clamp(c, low, high), clamp(d, low, high)


@_inline
def _filtered(pixels, taps, channel, inside, mask):
    """Filter and transform a cell.

    ``inside`` is None for a cell inside the map. At the border it tells whether the right and the
    lower pixels are in the map. Those outside are padding and stay zero, whatever the filter gives.
    """
    a, b, c, d = _filter(pixels, taps, channel, mask)
    if inside is not None:
        zero = splat(_ZERO)
        if not inside[0]:
            b, d = zero, zero
        if not inside[1]:
            c, d = zero, zero
    return split_cell(only(a, mask), only(b, mask), only(c, mask), only(d, mask))


@_inline
def _put(values, average, details, n, mask, sums):
    """Store a transformed cell and return the sums with the squares of its details added.

    The average goes to a row at ``average``, the details to three rows, the first at ``details[0]``
    and ``details[1]`` values apart. ``n`` is the first of the 16 channels.
    """
    first, channels = details
    store(average, n, values[0], None)
    store(first, n, values[1], mask)
    store(first, n + channels, values[2], mask)
    store(first, n + 2 * channels, values[3], mask)
    return add_squares(sums, values[1], values[2], values[3])


@_inline
def _add_norms(norms, place, sums):
    """Add the sums of squares of three details to the norms of their positions."""
    for band in range(3):
        norms[place + band] += total(sums[band])


@_inline
def _first_cell(pixels, taps, channel, count, inside, average, details):
    """Filter, transform and store ``count`` channels of a cell of the finest level.

    ``channel`` is the first of them. Return the sums of squares of the details.
    """
    corner, across, down = pixels
    zero = splat(_ZERO)
    sums, whole = (zero, zero, zero), count - count % LANES
    for n in range(0, whole, LANES):
        here = address_at(corner, n), across, down
        values = _filtered(here, taps, channel + n, inside, None)
        sums = _put(values, average, details, n, None, sums)
    if whole < count:
        here, mask = (address_at(corner, whole), across, down), first_lanes(count - whole)
        values = _filtered(here, taps, channel + whole, inside, mask)
        sums = _put(values, average, details, whole, mask, sums)
    return sums


@_inline
def _averages_at(cell, n):
    """Transform 16 channels of a cell of averages that were left by the finer level."""
    return split_cell(
        load(cell.a, n, None), load(cell.b, n, None), load(cell.c, n, None), load(cell.d, n, None)
    )


@_inline
def _next_cell(cell, count, average, details):
    """Transform and store ``count`` channels of a cell of averages, as :func:`_first_cell` does.

    The scratch rows of averages hold whole vectors, so reading them needs no mask.
    """
    zero = splat(_ZERO)
    sums, whole = (zero, zero, zero), count - count % LANES
    for n in range(0, whole, LANES):
        sums = _put(_averages_at(cell, n), average, details, n, None, sums)
    if whole < count:
        mask = first_lanes(count - whole)
        sums = _put(_averages_at(cell, whole), average, details, whole, mask, sums)
    return sums


@_inline
def filter_patch(area, taps, channel, count, space, y, norms, place):
    """Filter and transform ``count`` channels of a patch, from ``channel`` on.

    The coefficients go to rows from the address ``y`` on, and their squares are added to the norms
    from ``norms[place]`` on. Cells below or right of the map hold padding only and become zeros.
    """
    even, odd, cells = space.even, space.odd, area.side // 2
    for cell in range(cells * cells):
        i, j, band = cell // cells * 2, cell % cells * 2, cells * cells + 3 * cell
        corner = address_at(area.corner, i * area.down + j * area.across)
        pixels, average = (corner, area.across, area.down), address_at(even, cell * space.block)
        details = address_at(y, band * taps.channels), taps.channels
        right, lower = j + 1 < area.cols, i + 1 < area.rows
        if i >= area.rows or j >= area.cols:
            clear_row(average, space.block)
            for detail in range(band, band + 3):
                clear_row(address_at(y, detail * taps.channels), count)
        elif right and lower:
            sums = _first_cell(pixels, taps, channel, count, None, average, details)
            _add_norms(norms, place + band, sums)
        else:
            sums = _first_cell(pixels, taps, channel, count, (right, lower), average, details)
            _add_norms(norms, place + band, sums)
    while cells > 1:
        line, cells = cells * space.block, cells // 2
        for cell in range(cells * cells):
            band, average = cells * cells + 3 * cell, address_at(odd, cell * space.block)
            corner = address_at(even, cell // cells * 2 * line + cell % cells * 2 * space.block)
            details = address_at(y, band * taps.channels), taps.channels
            sums = _next_cell(cell_at(corner, space.block, line), count, average, details)
            _add_norms(norms, place + band, sums)
        even, odd = odd, even
    copy_row(even, y, count)
    norms[place] += square_row(even, count)
