"""Depthwise convolution into Haar coefficients, and row selection, in numba for float32.

The work goes patch by patch. For 16 channels at a time, the four pixels of a cell of the first
level are filtered in registers and leave as coefficients. Where the taps of a patch all lie inside
a channels_last map, they read the map itself. At the border, and in a contiguous map, they read a
copy of the pixels that they reach, with zeros outside the map. The size of the kernel and its
dilation come as the lengths of tuples. Numba knows those when it compiles, so it unrolls the loops
over taps. Patches are independent and their sums have one order, so results do not depend on the
number of threads.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..layout import padded_size
from .jit import jit
from .memory import array_of, as_map, empty, values_of
from .patch import split_cell
from .rounding import round_row
from .simd import LANES, address, clamp, first_lanes, hold, load, only, splat, store, total
from .threads import fork, thread_count
from .tiles import transpose_tile

__all__ = ['depthwise_haar', 'gather_rows', 'gather_rows_int8']

_ZERO = np.float32(0)

_jit = jit(error_model='numpy')
_inline = jit(error_model='numpy', forceinline=True)
_CHANNELS_LAST, _CONTIGUOUS = (
    102400,
    1 << 16,
)  # values of a strip that are worked on at a time: measured


@_inline
def _filter(source, corner, across, down, size, dilation, kernel, channel, channels, bounds, mask):
    """Filter 2x2 pixels for 16 channels.

    The first taps of the four read ``source[corner]`` and its neighbours, which lie ``across`` and
    ``down`` apart.
    """
    a = load(kernel, len(size) * len(size) * channels + channel, mask)  # the bias
    b, c, d = a, a, a
    for i in range(len(size)):
        for j in range(len(size)):
            tap = load(kernel, (i * len(size) + j) * channels + channel, mask)
            place = corner + len(dilation) * (i * down + j * across)
            a = a + tap * load(source, place, mask)
            b = b + tap * load(source, place + across, mask)
            c = c + tap * load(source, place + down, mask)
            d = d + tap * load(source, place + down + across, mask)
    low, high = splat(bounds[0]), splat(bounds[1])
    return clamp(a, low, high), clamp(b, low, high), clamp(c, low, high), clamp(d, low, high)


@_inline
def _filtered(
    source, corner, across, down, size, dilation, kernel, channel, channels, bounds, inside, mask
):
    """Filter and transform a cell.

    ``inside`` is None for a cell inside the map. At the border it tells whether the right and the
    lower pixels are in the map. Those outside are padding and stay zero, whatever the filter gives.
    """
    a, b, c, d = _filter(
        source, corner, across, down, size, dilation, kernel, channel, channels, bounds, mask
    )
    if inside is not None:
        zero = splat(_ZERO)
        if not inside[0]:
            b, d = zero, zero
        if not inside[1]:
            c, d = zero, zero
    return split_cell(only(a, mask), only(b, mask), only(c, mask), only(d, mask))


@_inline
def _put(values, averages, average, y, row, channels, sums, mask):
    """Store a transformed cell and return the sums with its squares added.

    The average goes to ``averages``, the three details to rows of ``y``.
    """
    store(averages, average, values[0], None)
    store(y, row, values[1], mask)
    store(y, row + channels, values[2], mask)
    store(y, row + 2 * channels, values[3], mask)
    return (
        sums[0] + values[1] * values[1],
        sums[1] + values[2] * values[2],
        sums[2] + values[3] * values[3],
    )


@_inline
def _first_cell(
    source,
    corner,
    across,
    down,
    size,
    dilation,
    kernel,
    channel,
    channels,
    count,
    bounds,
    inside,
    averages,
    average,
    y,
    row,
    norms,
    place,
):
    """Filter, transform and store ``count`` channels of a cell of the finest level."""
    zero = splat(_ZERO)
    sums, whole = (zero, zero, zero), count - count % LANES
    for n in range(0, whole, LANES):
        values = _filtered(
            source,
            corner + n,
            across,
            down,
            size,
            dilation,
            kernel,
            channel + n,
            channels,
            bounds,
            inside,
            None,
        )
        sums = _put(values, averages, average + n, y, row + n, channels, sums, None)
    if whole < count:
        mask = first_lanes(count - whole)
        values = _filtered(
            source,
            corner + whole,
            across,
            down,
            size,
            dilation,
            kernel,
            channel + whole,
            channels,
            bounds,
            inside,
            mask,
        )
        sums = _put(values, averages, average + whole, y, row + whole, channels, sums, mask)
    for band in range(3):
        norms[place + band] += total(sums[band])


@_inline
def _averages(source, corner, across, down):
    """Transform a cell of averages that were left by the finer level."""
    return split_cell(
        load(source, corner, None),
        load(source, corner + across, None),
        load(source, corner + down, None),
        load(source, corner + down + across, None),
    )


@_inline
def _next_cell(
    source, corner, across, down, count, averages, average, y, row, channels, norms, place
):
    """Transform and store ``count`` channels of a cell of averages.

    The scratch rows of averages hold whole vectors, so reading them needs no mask.
    """
    zero = splat(_ZERO)
    sums, whole = (zero, zero, zero), count - count % LANES
    for n in range(0, whole, LANES):
        sums = _put(
            _averages(source, corner + n, across, down),
            averages,
            average + n,
            y,
            row + n,
            channels,
            sums,
            None,
        )
    if whole < count:
        sums = _put(
            _averages(source, corner + whole, across, down),
            averages,
            average + whole,
            y,
            row + whole,
            channels,
            sums,
            first_lanes(count - whole),
        )
    for band in range(3):
        norms[place + band] += total(sums[band])


@_inline
def _copy(source, start, target, to, count):
    """Copy ``count`` values and return the sum of their squares."""
    sums, whole = splat(_ZERO), count - count % LANES
    for n in range(0, whole, LANES):
        values = load(source, start + n, None)
        store(target, to + n, values, None)
        sums = sums + values * values
    if whole < count:
        mask = first_lanes(count - whole)
        values = load(source, start + whole, mask)
        store(target, to + whole, values, mask)
        sums = sums + values * values
    return total(sums)


@_inline
def _clear(target, start, count):
    """Set ``count`` values to zero."""
    zero, whole = splat(_ZERO), count - count % LANES
    for n in range(0, whole, LANES):
        store(target, start + n, zero, None)
    if whole < count:
        store(target, start + whole, zero, first_lanes(count - whole))


@_jit
def _read(x, channels_last, shape, image, top, left, rows, cols, channel, count, block, pixels):
    """Copy ``rows`` x ``cols`` pixels into ``pixels``, with zeros outside the map.

    Each pixel takes ``block`` values. A contiguous map has its channels a plane apart, so it is
    transposed in tiles of 8x8 as far as they fit.
    """
    _, channels, height, width = shape
    if top < 0 or left < 0 or top + rows > height or left + cols > width:
        pixels[:] = 0
    start, stop, plane = max(0, -left), min(cols, width - left), height * width
    for i in range(max(0, -top), min(rows, height - top)):
        if channels_last:
            for j in range(start, stop):
                _copy(
                    address(x),
                    ((image * height + top + i) * width + left + j) * channels + channel,
                    address(pixels),
                    (i * cols + j) * block,
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


@_inline
def _transform(
    source,
    origin,
    across,
    down,
    shape,
    top,
    left,
    side,
    size,
    dilation,
    kernel,
    channel,
    count,
    bounds,
    block,
    even,
    odd,
    y,
    row,
    norms,
    place,
):
    """Filter and transform a patch.

    ``even`` and ``odd`` are scratch for the averages. They take turns: one level reads what the
    level before wrote to the other. Cells below or right of the map hold padding only and become
    zeros.
    """
    _, channels, height, width = shape
    cells = side // 2
    for cell in range(cells * cells):
        i, j, band = cell // cells * 2, cell % cells * 2, cells * cells + 3 * cell
        corner, right, lower = (
            origin + i * down + j * across,
            left + j + 1 < width,
            top + i + 1 < height,
        )
        if top + i >= height or left + j >= width:
            _clear(even, cell * block, block)
            for detail in range(band, band + 3):
                _clear(y, row + detail * channels, count)
        elif right and lower:
            _first_cell(
                source,
                corner,
                across,
                down,
                size,
                dilation,
                kernel,
                channel,
                channels,
                count,
                bounds,
                None,
                even,
                cell * block,
                y,
                row + band * channels,
                norms,
                place + band,
            )
        else:
            _first_cell(
                source,
                corner,
                across,
                down,
                size,
                dilation,
                kernel,
                channel,
                channels,
                count,
                bounds,
                (right, lower),
                even,
                cell * block,
                y,
                row + band * channels,
                norms,
                place + band,
            )
    while cells > 1:
        line, cells = cells * block, cells // 2
        for cell in range(cells * cells):
            corner, band = (
                cell // cells * 2 * line + cell % cells * 2 * block,
                cells * cells + 3 * cell,
            )
            _next_cell(
                even,
                corner,
                block,
                line,
                count,
                odd,
                cell * block,
                y,
                row + band * channels,
                channels,
                norms,
                place + band,
            )
        even, odd = odd, even
    norms[place] += _copy(even, 0, y, row, count)


@_jit
def _depthwise_strips(
    begin,
    end,
    x,
    channels_last,
    shape,
    kernel,
    size,
    dilation,
    levels,
    bounds,
    length,
    block,
    y,
    norms,
):
    """Filter and transform strips of ``length`` patches, ``block`` channels at a time."""
    _, channels, height, width = shape
    side, area, margin = 1 << levels, 1 << 2 * levels, len(dilation) * (len(size) // 2)
    rows, cols = (height + side - 1) // side, (width + side - 1) // side
    strips, lines, line = (
        (cols + length - 1) // length,
        side + 2 * margin,
        length * side + 2 * margin,
    )
    pixels = np.empty(lines * line * block, np.float32)
    even, odd = (
        np.empty(area // 4 * block, np.float32),
        np.empty(max(1, area // 16) * block, np.float32),
    )
    for strip in range(begin, end):
        image, row, col = strip // (rows * strips), strip // strips % rows, strip % strips * length
        top, left, patches = row * side, col * side, min(length, cols - col)
        first_place = ((image * rows + row) * cols + col) * area
        norms[first_place : first_place + patches * area] = 0
        direct = (
            channels_last
            and top >= margin
            and left >= margin
            and top + side + margin <= height
            and left + patches * side + margin <= width
        )
        for channel in range(0, channels, block):
            count = min(block, channels - channel)
            source, origin, across, down = address(pixels), 0, block, line * block
            if direct:
                origin = (
                    (image * height + top - margin) * width + left - margin
                ) * channels + channel
                source, across, down = address(x), channels, width * channels
            else:
                _read(
                    x,
                    channels_last,
                    shape,
                    image,
                    top - margin,
                    left - margin,
                    lines,
                    line,
                    channel,
                    count,
                    block,
                    pixels,
                )
            for patch in range(patches):
                place = first_place + patch * area
                _transform(
                    source,
                    origin + patch * side * across,
                    across,
                    down,
                    shape,
                    top,
                    left + patch * side,
                    side,
                    size,
                    dilation,
                    address(kernel),
                    channel,
                    count,
                    bounds,
                    block,
                    address(even),
                    address(odd),
                    address(y),
                    place * channels + channel,
                    norms,
                    place,
                )
    hold((pixels, even, odd))


@_jit
def _depthwise_kernel(count, threads, *arguments):
    fork(_depthwise_strips, count, threads, arguments)


@_jit
def _positions(slot, k):
    """Return the position of each kept row, counted over the whole batch: the inverse of ``slot``."""
    batch, positions = slot.shape
    kept = np.empty(batch * k, np.int64)
    for image in range(batch):
        for p in range(positions):
            if slot[image, p] >= 0:
                kept[image * k + slot[image, p]] = image * positions + p
    return kept


@_jit
def _gather_lines(begin, end, coefficients, kept, channels, rows):
    """Copy kept rows, each from its position."""
    for row in range(begin, end):
        _copy(address(coefficients), kept[row] * channels, address(rows), row * channels, channels)


@_jit
def _gather_kernel(count, threads, *arguments):
    fork(_gather_lines, count, threads, arguments)


@_jit
def _gather_int8_lines(begin, end, coefficients, kept, channels, step, low, high, shift, rows):
    """Round kept rows to a grid, each from its position."""
    for row in range(begin, end):
        round_row(
            coefficients,
            kept[row] * channels,
            (step, low, high, shift),
            rows,
            row * channels,
            channels,
        )


@_jit
def _gather_int8_kernel(count, threads, *arguments):
    fork(_gather_int8_lines, count, threads, arguments)


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
    bounds = (
        np.float32(-np.inf if low is None else low),
        np.float32(np.inf if high is None else high),
    )
    length = 1 if channels_last else max(1, 32 >> levels)
    margin = dilation * (size // 2)
    reach = ((1 << levels) + 2 * margin) * ((length << levels) + 2 * margin)
    block = LANES * min(
        -(-channels // LANES),
        max(1, (_CHANNELS_LAST if channels_last else _CONTIGUOUS) // reach // LANES),
    )
    padded_height, padded_width = padded_size(height, levels), padded_size(width, levels)
    count = batch * (padded_height >> levels) * -(-padded_width // (length << levels))
    positions = padded_height * padded_width
    y, norms = empty((batch, positions, channels)), empty((batch, positions))
    _depthwise_kernel(
        count,
        thread_count(count),
        values_of(x),
        channels_last,
        tuple(x.shape),
        values_of(kernel),
        (0,) * size,
        (0,) * dilation,
        levels,
        bounds,
        length,
        block,
        values_of(y),
        values_of(norms),
    )
    return y, norms


def gather_rows(coefficients: Tensor, slot: Tensor, k: int) -> Tensor:
    """Compute :func:`mmwcc.kernels.gather_rows` of float32 coefficients."""
    batch, _, channels = coefficients.shape
    rows = empty((batch, k, channels))
    _gather_kernel(
        batch * k,
        thread_count(batch * k),
        values_of(coefficients.contiguous()),
        _positions(array_of(slot.contiguous()), k),
        channels,
        values_of(rows),
    )
    return rows


def gather_rows_int8(
    coefficients: Tensor, slot: Tensor, k: int, step: Tensor, low: int, high: int
) -> Tensor:
    """Compute :func:`mmwcc.kernels.gather_rows_int8` of float32 coefficients."""
    batch, _, channels = coefficients.shape
    rows = empty((batch, k, channels), torch.int8)
    _gather_int8_kernel(
        batch * k,
        thread_count(batch * k),
        values_of(coefficients.contiguous()),
        _positions(array_of(slot.contiguous()), k),
        channels,
        np.float32(step.item()),
        np.float32(low),
        np.float32(high),
        np.float32(128 if high > 127 else 0),
        values_of(rows),
    )
    return rows
