"""The Haar transform of cells in numba: 2x2 pixels and their average, cH, cV and cD.

:func:`split_cell` and :func:`merge_cell` transform vectors in registers. The other functions
transform whole cells in memory, vectorized over channels. There, each pixel and each coefficient is
a row of ``count`` channels, given by its address.

``a``, ``b``, ``c`` and ``d`` belong to the upper left, upper right, lower left and lower right
pixel of a cell. Functions whose names end in ``_lanes`` process the 16 channels from ``n`` on, or
the last few under a mask.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .addresses import address_at, prefetch
from .jit import jit
from .simd import LANES, first_lanes, load, splat, store, stream, total

__all__ = [
    'Cell',
    'add_squares',
    'average_cell',
    'cell_at',
    'merge_cell',
    'merge_rows',
    'split_cell',
    'split_norms',
    'split_rows',
    'spread_row',
]

_HALF, _ZERO = np.float32(0.5), np.float32(0)
_index = np.uintp  # unsigned: numba checks signed indices for negative values

# Values must equal the reference bit for bit. So their arithmetic may be contracted, since halving
# is exact, but not reordered. NaN and infinity keep their meaning.
_jit = jit(fastmath={'contract'}, error_model='numpy', forceinline=True)


class Cell(NamedTuple):
    """The addresses of the rows of 2x2 pixels."""

    a: np.uintp
    b: np.uintp
    c: np.uintp
    d: np.uintp


@_jit
def cell_at(corner, right, down):
    """Return the cell whose upper left pixel is at an address.

    Its other pixels lie ``right`` and ``down`` values further on.
    """
    return Cell(
        corner,
        address_at(corner, right),
        address_at(corner, down),
        address_at(corner, down + right),
    )


@_jit
def split_cell(a, b, c, d):
    """Transform 2x2 pixels, each a vector, into average, cH, cV and cD."""
    half = splat(_HALF)
    total_even, change_even = a + c, a - c
    total_odd, change_odd = b + d, b - d
    return (
        (total_even + total_odd) * half,
        (change_even + change_odd) * half,
        (total_even - total_odd) * half,
        (change_even - change_odd) * half,
    )


@_jit
def merge_cell(average, change, tilt, cross, offset):
    """Invert :func:`split_cell` and add an offset."""
    half = splat(_HALF)
    mean, tilt = average * half, tilt * half
    change, cross = change * half, cross * half
    total_even, total_odd = mean + tilt, mean - tilt
    change_even, change_odd = change + cross, change - cross
    return (
        total_even + change_even + offset,
        total_odd + change_odd + offset,
        total_even - change_even + offset,
        total_odd - change_odd + offset,
    )


@_jit
def add_squares(sums, change, tilt, cross):
    """Add the squares of three details, each a vector, to three sums."""
    return sums[0] + change * change, sums[1] + tilt * tilt, sums[2] + cross * cross


@_jit
def _prefetch_lanes(cell, n, ahead):
    """Prefetch what lies ``ahead`` values further on, or nothing if that is 0."""
    if ahead != 0:
        place = np.intp(n) + np.intp(ahead)
        prefetch(cell.a, place)
        prefetch(cell.b, place)
        prefetch(cell.c, place)
        prefetch(cell.d, place)


@_jit
def _coefficients(cell, n, mask):
    """Read 2x2 pixels and transform them into average, cH, cV and cD."""
    return split_cell(
        load(cell.a, n, mask), load(cell.b, n, mask), load(cell.c, n, mask), load(cell.d, n, mask)
    )


@_jit
def split_norms(cell, low, count, ahead):
    """Transform a cell: write its averages to ``low``, and return the squared norms of its details.

    The norms are sums over the channels. The details themselves are not stored.
    """
    zero, count = splat(_ZERO), _index(count)
    sums, whole = (zero, zero, zero), count - count % _index(LANES)
    for n in range(_index(0), whole, _index(LANES)):
        _prefetch_lanes(cell, n, ahead)
        average, change, tilt, cross = _coefficients(cell, n, None)
        store(low, n, average, None)
        sums = add_squares(sums, change, tilt, cross)
    if whole < count:
        mask = first_lanes(count - whole)
        average, change, tilt, cross = _coefficients(cell, whole, mask)
        store(low, whole, average, mask)
        sums = add_squares(sums, change, tilt, cross)
    return total(sums[0]), total(sums[1]), total(sums[2])


@_jit
def _split_lanes(cell, low, details, n, mask):
    """Transform 16 channels of a cell into averages and three details."""
    average, change, tilt, cross = _coefficients(cell, n, mask)
    store(low, n, average, mask)
    store(details[0], n, change, mask)
    store(details[1], n, tilt, mask)
    store(details[2], n, cross, mask)


@_jit
def split_rows(cell, low, details, count, ahead):
    """Transform a cell: write its averages to ``low``, and cH, cV and cD to three rows."""
    count = _index(count)
    whole = count - count % _index(LANES)
    for n in range(_index(0), whole, _index(LANES)):
        _prefetch_lanes(cell, n, ahead)
        _split_lanes(cell, low, details, n, None)
    if whole < count:
        _split_lanes(cell, low, details, whole, first_lanes(count - whole))


@_jit
def average_cell(cell, low, count, ahead):
    """Write only the averages of a cell, where none of its details is kept."""
    count = _index(count)
    whole = count - count % _index(LANES)
    for n in range(_index(0), whole, _index(LANES)):
        _prefetch_lanes(cell, n, ahead)
        store(low, n, _coefficients(cell, n, None)[0], None)
    if whole < count:
        mask = first_lanes(count - whole)
        store(low, whole, _coefficients(cell, whole, mask)[0], mask)


@_jit
def _put_lanes(cell, values, n, mask, streamed):
    """Write four vectors to the pixels of a cell, past the cache if ``streamed``."""
    if streamed:
        stream(cell.a, n, values[0])
        stream(cell.b, n, values[1])
        stream(cell.c, n, values[2])
        stream(cell.d, n, values[3])
        return
    store(cell.a, n, values[0], mask)
    store(cell.b, n, values[1], mask)
    store(cell.c, n, values[2], mask)
    store(cell.d, n, values[3], mask)


@_jit
def _merge_lanes(low, details, bias, n, mask):
    """Invert :func:`_split_lanes`, add the bias and return the four pixels."""
    return merge_cell(
        load(low, n, mask),
        load(details[0], n, mask),
        load(details[1], n, mask),
        load(details[2], n, mask),
        load(bias, n, mask),
    )


@_jit
def merge_rows(low, details, bias, cell, count, streamed):
    """Invert :func:`split_rows`, add the bias and write the pixels of the cell."""
    count = _index(count)
    whole = count - count % _index(LANES)
    for n in range(_index(0), whole, _index(LANES)):
        _put_lanes(cell, _merge_lanes(low, details, bias, n, None), n, None, streamed)
    if whole < count:
        mask = first_lanes(count - whole)
        _put_lanes(cell, _merge_lanes(low, details, bias, whole, mask), whole, mask, False)


@_jit
def _spread_lanes(low, bias, n, mask):
    """Return half of the average plus the bias, for all four pixels.

    That is what merging gives without details.
    """
    value = load(low, n, mask) * splat(_HALF) + load(bias, n, mask)
    return value, value, value, value


@_jit
def spread_row(low, bias, cell, count, streamed):
    """Invert :func:`split_rows` where all details are zero, and add the bias."""
    count = _index(count)
    whole = count - count % _index(LANES)
    for n in range(_index(0), whole, _index(LANES)):
        _put_lanes(cell, _spread_lanes(low, bias, n, None), n, None, streamed)
    if whole < count:
        mask = first_lanes(count - whole)
        _put_lanes(cell, _spread_lanes(low, bias, whole, mask), whole, mask, False)
