"""The Haar transform of one patch in numba, vectorized over channels.

The patches come from channels_last maps. The unit of work is a strip: a row of patches at least 16
pixels wide, in one block of channels. A strip inside the map is transformed straight from and to
the map. At the border it passes through a block of pixels that stays in the cache.
"""

from __future__ import annotations

import numpy as np

from .jit import jit
from .rounding import round_row
from .simd import LANES, address, first_lanes, load, load_either, splat, store, stream, total
from .tiles import prefetch

__all__ = [
    'LINE',
    'channel_block',
    'merge_cell',
    'patch_norms',
    'patch_pixels',
    'patch_rows',
    'read_strip',
    'split_cell',
    'strip_of',
    'write_strip',
]

LINE = 16  # width of a strip in pixels, at least
_HALF, _ZERO = np.float32(0.5), np.float32(0)

# Values must equal the reference bit for bit. So their arithmetic may be contracted, since halving
# is exact, but not reordered. NaN and infinity keep their meaning.
_jit = jit(fastmath={'contract'}, error_model='numpy', forceinline=True)


@_jit
def strip_of(strip, shape, levels):
    """Return where a strip lies.

    Returns:
        Its image, its top and left pixel, the number of its first patch within the image, how many
        patches it has, and whether all of it is inside the map.
    """
    _, _, height, width = shape
    side = 1 << levels
    length = max(side, LINE)
    rows, cols, strips = (
        (height + side - 1) // side,
        (width + side - 1) // side,
        (width + length - 1) // length,
    )
    image, place = strip // (rows * strips), strip % (rows * strips)
    row, col = place // strips, place % strips * (length // side)
    inside = (row + 1) * side <= height and col * side + length <= width
    return image, row * side, col * side, row * cols + col, min(length // side, cols - col), inside


def channel_block(channels: int, levels: int) -> int:
    """Return how many channels are transformed at a time: as many as keep a strip in the cache."""
    return min(channels, max(LANES, (1 << 16) >> 2 * levels))


@_jit
def read_strip(x, shape, image, top, left, side, length, first, count, pixels, block):
    """Copy a strip into ``pixels``, with zeros outside the map.

    ``pixels`` holds lines of ``length`` pixels, each a row of ``block`` channels.
    """
    _, channels, height, width = shape
    rows, cols = min(side, height - top), min(length, width - left)
    if rows < side or cols < length:
        pixels[:] = 0
    for i in range(rows):
        for j in range(cols):
            _copy(
                x,
                ((image * height + top + i) * width + left + j) * channels + first,
                pixels,
                (i * length + j) * block,
                count,
            )


@_jit
def write_strip(y, shape, image, top, left, side, length, first, count, pixels, block):
    """Undo :func:`read_strip`: copy the part of ``pixels`` inside the map back to it."""
    _, channels, height, width = shape
    for i in range(min(side, height - top)):
        for j in range(min(length, width - left)):
            _copy(
                pixels,
                (i * length + j) * block,
                y,
                ((image * height + top + i) * width + left + j) * channels + first,
                count,
            )


# The functions below take addresses or flat arrays, and where a row of `count` channels starts from
# there: counting references to arrays would cost more than the arithmetic of a short row. `a`, `b`,
# `c` and `d` belong to the upper left, upper right, lower left and lower right pixel of a cell.
# Functions whose names end in `_some` process 16 channels, or the last few.
_index = np.uintp  # unsigned: numba checks signed indices for negative values


@_jit
def split_cell(a, b, c, d):
    """Transform 2x2 pixels, each a vector of channels, into average, cH, cV and cD."""
    half = splat(_HALF)
    total_even, change_even, total_odd, change_odd = a + c, a - c, b + d, b - d
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
    mean, tilt, change, cross = average * half, tilt * half, change * half, cross * half
    total_even, total_odd, change_even, change_odd = (
        mean + tilt,
        mean - tilt,
        change + cross,
        change - cross,
    )
    return (
        total_even + change_even + offset,
        total_odd + change_odd + offset,
        total_even - change_even + offset,
        total_odd - change_odd + offset,
    )


@_jit
def _ask_cell(source, a, b, c, d, n, ahead):
    """Prefetch the 2x2 pixels that lie ``ahead`` values further on, or nothing if that is 0."""
    if ahead != 0:
        n = np.intp(n) + np.intp(ahead)
        prefetch(source, np.intp(a) + n)
        prefetch(source, np.intp(b) + n)
        prefetch(source, np.intp(c) + n)
        prefetch(source, np.intp(d) + n)


@_jit
def _cell(source, a, b, c, d, n, mask):
    """Read 2x2 pixels and transform them."""
    return split_cell(
        load(source, a + n, mask),
        load(source, b + n, mask),
        load(source, c + n, mask),
        load(source, d + n, mask),
    )


@_jit
def _split_norms(source, a, b, c, d, low, at, count, ahead):
    """Transform 2x2 pixels: write the averages, and return the squared norms of cH, cV and cD.

    The norms are sums over the channels. The coefficients themselves are not stored.
    """
    a, b, c, d, at, count = _index(a), _index(b), _index(c), _index(d), _index(at), _index(count)
    horizontal = vertical = diagonal = splat(_ZERO)
    whole = count - count % _index(LANES)
    for n in range(_index(0), whole, _index(LANES)):
        _ask_cell(source, a, b, c, d, n, ahead)
        average, change, tilt, cross = _cell(source, a, b, c, d, n, None)
        store(low, at + n, average, None)
        horizontal, vertical, diagonal = (
            horizontal + change * change,
            vertical + tilt * tilt,
            diagonal + cross * cross,
        )
    if whole < count:
        mask = first_lanes(count - whole)
        average, change, tilt, cross = _cell(source, a, b, c, d, whole, mask)
        store(low, at + whole, average, mask)
        horizontal, vertical, diagonal = (
            horizontal + change * change,
            vertical + tilt * tilt,
            diagonal + cross * cross,
        )
    return total(horizontal), total(vertical), total(diagonal)


@_jit
def _square(row, count):
    """Return the sum of the squares of a row of ``count`` values."""
    count = _index(count)
    squares, whole = splat(_ZERO), count - count % _index(LANES)
    for n in range(_index(0), whole, _index(LANES)):
        values = load(row, n, None)
        squares = squares + values * values
    if whole < count:
        values = load(row, whole, first_lanes(count - whole))
        squares = squares + values * values
    return total(squares)


@_jit
def _split_some(source, a, b, c, d, low, at, first, second, third, n, mask):
    """Transform 2x2 pixels of 16 channels into averages and three rows."""
    average, change, tilt, cross = _cell(source, a, b, c, d, n, mask)
    store(low, at + n, average, mask)
    store(first, n, change, mask)
    store(second, n, tilt, mask)
    store(third, n, cross, mask)


@_jit
def _split(source, a, b, c, d, low, at, first, second, third, count, ahead):
    """Transform 2x2 pixels into averages and three rows: cH, cV and cD."""
    a, b, c, d, at, count = _index(a), _index(b), _index(c), _index(d), _index(at), _index(count)
    whole = count - count % _index(LANES)
    for n in range(_index(0), whole, _index(LANES)):
        _ask_cell(source, a, b, c, d, n, ahead)
        _split_some(source, a, b, c, d, low, at, first, second, third, n, None)
    if whole < count:
        _split_some(
            source, a, b, c, d, low, at, first, second, third, whole, first_lanes(count - whole)
        )


@_jit
def _average(source, a, b, c, d, low, at, count, ahead):
    """Write only the averages of 2x2 pixels, where none of their details is kept."""
    a, b, c, d, at, count = _index(a), _index(b), _index(c), _index(d), _index(at), _index(count)
    whole = count - count % _index(LANES)
    for n in range(_index(0), whole, _index(LANES)):
        _ask_cell(source, a, b, c, d, n, ahead)
        store(low, at + n, _cell(source, a, b, c, d, n, None)[0], None)
    if whole < count:
        mask = first_lanes(count - whole)
        store(low, at + whole, _cell(source, a, b, c, d, whole, mask)[0], mask)


@_jit
def _merge_some(
    low, at, packed, has, i, j, k, zeros, bias, shift, y, a, b, c, d, n, mask, streamed
):
    """Invert :func:`_split_some`.

    ``has`` tells which details were kept. ``zeros`` replaces the others.
    """
    a_value, b_value, c_value, d_value = merge_cell(
        load(low, at + n, mask),
        load_either(has[0], packed, i + n, zeros, n, mask),
        load_either(has[1], packed, j + n, zeros, n, mask),
        load_either(has[2], packed, k + n, zeros, n, mask),
        load(bias, shift + n, mask),
    )
    if streamed:
        stream(y, a + n, a_value)
        stream(y, b + n, b_value)
        stream(y, c + n, c_value)
        stream(y, d + n, d_value)
        return
    store(y, a + n, a_value, mask)
    store(y, b + n, b_value, mask)
    store(y, c + n, c_value, mask)
    store(y, d + n, d_value, mask)


@_jit
def _merge(low, at, packed, has, i, j, k, zeros, bias, shift, y, a, b, c, d, count, streamed):
    """Invert :func:`_split` and add the bias.

    ``packed`` has only the kept details. The other rows are read from ``zeros``, without a branch.
    """
    at, i, j, k, shift, count = (
        _index(at),
        _index(i),
        _index(j),
        _index(k),
        _index(shift),
        _index(count),
    )
    a, b, c, d = _index(a), _index(b), _index(c), _index(d)
    whole = count - count % _index(LANES)
    for n in range(_index(0), whole, _index(LANES)):
        _merge_some(
            low, at, packed, has, i, j, k, zeros, bias, shift, y, a, b, c, d, n, None, streamed
        )
    if whole < count:
        mask = first_lanes(count - whole)
        _merge_some(
            low, at, packed, has, i, j, k, zeros, bias, shift, y, a, b, c, d, whole, mask, False
        )


@_jit
def _spread_some(low, at, bias, shift, y, a, b, c, d, n, mask, streamed):
    """Write half of the average, plus the bias, to all four pixels.

    That is what merging gives without details.
    """
    value = load(low, at + n, mask) * splat(_HALF) + load(bias, shift + n, mask)
    if streamed:
        stream(y, a + n, value)
        stream(y, b + n, value)
        stream(y, c + n, value)
        stream(y, d + n, value)
        return
    store(y, a + n, value, mask)
    store(y, b + n, value, mask)
    store(y, c + n, value, mask)
    store(y, d + n, value, mask)


@_jit
def _spread(low, at, bias, shift, y, a, b, c, d, count, streamed):
    """Invert :func:`_split` where all details are zero, and add the bias."""
    at, shift, count = _index(at), _index(shift), _index(count)
    a, b, c, d = _index(a), _index(b), _index(c), _index(d)
    whole = count - count % _index(LANES)
    for n in range(_index(0), whole, _index(LANES)):
        _spread_some(low, at, bias, shift, y, a, b, c, d, n, None, streamed)
    if whole < count:
        _spread_some(low, at, bias, shift, y, a, b, c, d, whole, first_lanes(count - whole), False)


@_jit
def _copy(source, start, target, at, count):
    """Copy a row of ``count`` values."""
    start, at, count = _index(start), _index(at), _index(count)
    whole = count - count % _index(LANES)
    for n in range(_index(0), whole, _index(LANES)):
        store(target, at + n, load(source, start + n, None), None)
    if whole < count:
        mask = first_lanes(count - whole)
        store(target, at + whole, load(source, start + whole, mask), mask)


@_jit
def _ahead(row, cells, down, following):
    """Return how far ahead of a row of cells to prefetch.

    This is two lines on, or for the last row of cells the first lines of the next patch.
    """
    return 0 if following == 0 else 2 * down if row < cells - 1 else following - 2 * row * down


@_jit
def patch_norms(
    source, origin, right, down, count, side, low, spare, block, norms, start, following
):
    """Transform a patch and add the squares of its coefficients to ``norms``.

    Pixel (i, j) of the patch has its channels from ``source[origin + i * down + j * right]`` on.
    While two lines are transformed, the next two are prefetched. With the last two, those are the
    first lines of the next patch, which lies ``following`` values further on. If ``following`` is
    0, nothing is prefetched.
    """
    cells = side // 2
    while cells > 0:
        for row in range(cells):
            ahead = _ahead(row, cells, down, following)
            for cell in range(row * cells, (row + 1) * cells):
                a = origin + row * 2 * down + (cell - row * cells) * 2 * right
                sums = _split_norms(
                    source,
                    a,
                    a + right,
                    a + down,
                    a + down + right,
                    low,
                    cell * block,
                    count,
                    ahead,
                )
                index = start + cells * cells + 3 * cell
                norms[index] += sums[0]
                norms[index + 1] += sums[1]
                norms[index + 2] += sums[2]
        source, origin, right, down, following = low, 0, block, cells * block, 0
        low, spare, cells = spare, low, cells // 2
    norms[start] += _square(source, count)


@_jit
def _row(packed, start, kept, spare):
    """Return the address to write a row to: its place in ``packed`` if it is kept, else ``spare``."""
    return _index(packed) + _index(4) * _index(start) if kept else _index(spare)


@_jit
def patch_rows(
    source,
    origin,
    right,
    down,
    count,
    side,
    low,
    spare,
    details,
    block,
    kept,
    start,
    grid,
    packed,
    at,
    channels,
    following,
):
    """Transform a patch, laid out as for :func:`patch_norms`, and write its kept coefficients.

    They go straight to ``packed``. If they are rounded to a grid, they pass through ``details``
    first, and NaN becomes 0.
    """
    quantized, step, lowest, highest = grid
    cells = side // 2
    while cells > 0:
        for row in range(cells):
            ahead = _ahead(row, cells, down, following)
            for cell in range(row * cells, (row + 1) * cells):
                a = origin + row * 2 * down + (cell - row * cells) * 2 * right
                index = start + cells * cells + 3 * cell
                i, j, k = kept[index], kept[index + 1], kept[index + 2]
                if i & j & k < 0:  # all dropped
                    _average(
                        source,
                        a,
                        a + right,
                        a + down,
                        a + down + right,
                        low,
                        cell * block,
                        count,
                        ahead,
                    )
                    continue
                rows = address(packed)
                first = address(details)
                second, third = first + _index(4 * block), first + _index(8 * block)
                if not quantized:
                    first = _row(rows, at + i * channels, i >= 0, first)
                    second = _row(rows, at + j * channels, j >= 0, second)
                    third = _row(rows, at + k * channels, k >= 0, third)
                _split(
                    source,
                    a,
                    a + right,
                    a + down,
                    a + down + right,
                    low,
                    cell * block,
                    first,
                    second,
                    third,
                    count,
                    ahead,
                )
                if quantized:
                    for n in range(3):
                        if kept[index + n] >= 0:
                            round_row(
                                details,
                                n * block,
                                (step, lowest, highest, _ZERO),
                                packed,
                                at + kept[index + n] * channels,
                                count,
                            )
        source, origin, right, down, following = low, 0, block, cells * block, 0
        low, spare, cells = spare, low, cells // 2
    if kept[start] >= 0:
        if quantized:
            _copy(source, 0, address(details), 0, count)
            round_row(
                details,
                0,
                (step, lowest, highest, _ZERO),
                packed,
                at + kept[start] * channels,
                count,
            )
        else:
            _copy(source, 0, address(packed), at + kept[start] * channels, count)


@_jit
def patch_pixels(
    packed,
    at,
    channels,
    count,
    kept,
    start,
    side,
    source,
    spare,
    block,
    zeros,
    bias,
    first,
    y,
    origin,
    right,
    down,
    streamed,
):
    """Invert the transform of a patch from its kept rows and write its pixels, plus bias, to ``y``.

    The averages of one level are in ``source`` and those of the next finer one go to ``spare``; the
    two take turns. Only the finest level is written to ``y``.
    """
    first_row = kept[start] >= 0
    _copy(
        packed if first_row else zeros,
        at + kept[start] * channels if first_row else 0,
        source,
        0,
        count,
    )
    cells = 1
    while cells < side:
        target, corner, across, below, shift, shift_at = (
            spare,
            0,
            block,
            2 * cells * block,
            zeros,
            0,
        )
        last = 2 * cells == side
        if last:
            target, corner, across, below, shift, shift_at = y, origin, right, down, bias, first
        for row in range(cells):
            for cell in range(row * cells, (row + 1) * cells):
                a = corner + row * 2 * below + (cell - row * cells) * 2 * across
                index = start + cells * cells + 3 * cell
                i, j, k = kept[index], kept[index + 1], kept[index + 2]
                if i & j & k < 0:  # all dropped
                    _spread(
                        source,
                        cell * block,
                        shift,
                        shift_at,
                        target,
                        a,
                        a + across,
                        a + below,
                        a + below + across,
                        count,
                        last and streamed,
                    )
                    continue
                _merge(
                    source,
                    cell * block,
                    packed,
                    (i >= 0, j >= 0, k >= 0),
                    at + i * channels,
                    at + j * channels,
                    at + k * channels,
                    zeros,
                    shift,
                    shift_at,
                    target,
                    a,
                    a + across,
                    a + below,
                    a + below + across,
                    count,
                    last and streamed,
                )
        source, spare, cells = spare, source, 2 * cells
