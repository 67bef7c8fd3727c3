"""Haar norms, pack and unpack in numba for contiguous float32 maps, band by band.

A band is transformed channel by channel. In one channel it is one or a few lines of consecutive
memory. They are prefetched, because the next channel lies a plane further, beyond what the hardware
prefetcher foresees. The rows, which hold channels, are transposed to and from tiles. They are
written 64 channels at a time: writing them as single lines of 64 bytes, far apart, takes 10 to 18 %
longer (two Zen 5 cores).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .jit import jit
from .memory import address_of
from .plane import PIECE, band_layout, merge_plane, split_plane
from .rounding import round_row
from .select import select_kernel
from .simd import LANES, address, first_lanes, hold, load, scratch, store
from .threads import fork, thread_count
from .tiles import gather_tile, prefetch, turn_tile

__all__ = ['band_norms', 'band_pack', 'band_shrink', 'band_unpack']

_LENGTH = 128  # pixels in a line of a band, at most
_AHEAD = 2048  # how many values ahead of their use memory is prefetched: 8 kB
_BLOCK = 4 * LANES  # channels whose squares are summed, or whose rows are written, at a time
_TILE = LANES * LANES
_ZERO = np.float32(0)

_inline = jit(error_model='numpy', fastmath={'contract'}, forceinline=True)
_jit = jit(error_model='numpy', fastmath={'contract'})


@_inline
def _band_of(band, shape, side, length):
    """Return where a band lies.

    Returns:
        Its image, its top and left pixel, the number of its first patch within the image, and how
        many patches it has.
    """
    _, _, height, width = shape
    rows, cols, bands = (
        (height + side - 1) // side,
        (width + side - 1) // side,
        (width + length - 1) // length,
    )
    image, place = band // (rows * bands), band % (rows * bands)
    row, col = place // bands, place % bands * (length // side)
    return image, row * side, col * side, row * cols + col, min(length // side, cols - col)


@_inline
def _ahead(shape, side, length):
    """Return how far ahead of a band to prefetch, in values: one channel, or several small ones.

    That is about ``_AHEAD`` values of the band. Channels lie ``height * width`` values apart.
    """
    return np.uintp(max(1, _AHEAD // (side * length)) * shape[2] * shape[3])


@_jit
def _norms_bands(begin, end, x, shape, side, layout, order, places, norms):
    """Sum the squared coefficients of bands over the channels.

    The sums are kept in the order of the tiles. ``places`` then puts them in position order.
    """
    _, channels, height, width = shape
    length, _, total = layout
    area, positions, flat_norms = side * side, norms.shape[1], norms.reshape(-1)
    sums, part = scratch(total * LANES), scratch(total * LANES)
    lows, ahead = scratch(side * (length + 2 * PIECE)), _ahead(shape, side, length)
    for band in range(begin, end):
        image, top, left, patch, patches = _band_of(band, shape, side, length)
        sums[:] = 0
        for first in range(0, channels, _BLOCK):  # sums of partial sums are more accurate
            part[:] = 0
            for channel in range(first, min(first + _BLOCK, channels)):
                origin = ((image * channels + channel) * height + top) * width + left
                split_plane(
                    x,
                    origin,
                    width,
                    height - top,
                    width - left,
                    layout,
                    order,
                    address(lows),
                    address(part),
                    0,
                    LANES,
                    (),
                    ahead,
                )
            sums += part
        start = image * positions + patch * area
        for n in range(patches * area):
            flat_norms[start + n] = sums[places[n]]
    hold((lows, part))


@_jit
def _norms_kernel(count, threads, *arguments):
    fork(_norms_bands, count, threads, arguments)


@_inline
def _list_rows(slot, start, count, channels, places, kept, used):
    """List the kept cells of a band and return how many there are.

    ``kept`` gets where each one is in the tiles and where its row starts in the output. ``used``
    tells which tiles have any.
    """
    used[:] = False
    members = 0
    for n in range(count):
        row = slot[start + n]
        if row >= 0:
            kept[members, 0], kept[members, 1] = places[n] * LANES, row * channels
            used[places[n] // LANES] = True
            members += 1
    return members


@_inline
def _emit(tiles, size, kept, grid, packed, at, count):
    """Write ``count`` channels of the kept rows, or the integers that they round to on a grid.

    The tiles of 16 channels take ``size`` values.
    """
    quantized, step, low, high = grid
    for n in range(len(kept)):
        source, target = kept[n, 0], kept[n, 1] + at
        for first in range(0, count, LANES):
            if quantized:
                round_row(
                    tiles,
                    source,
                    (step, low, high, _ZERO),
                    packed,
                    target,
                    min(LANES, count - first),
                )
            elif first + LANES <= count:
                store(
                    address(packed),
                    np.uintp(target),
                    load(address(tiles), np.uintp(source), None),
                    None,
                )
            else:
                mask = first_lanes(np.uintp(count - first))
                store(
                    address(packed),
                    np.uintp(target),
                    load(address(tiles), np.uintp(source), mask),
                    mask,
                )
            source, target = source + size, target + LANES


@_jit
def _pack_bands(begin, end, x, shape, side, layout, order, places, slot, grid, packed):
    """Transform bands and write their kept rows.

    The channels of a block are split into tiles first. Only tiles with a kept cell are transposed,
    so that the 16 channels of a cell lie together.
    """
    _, channels, height, width = shape
    length, _, total = layout
    area, positions, size = side * side, slot.shape[1], packed.shape[1] * packed.shape[2]
    flat_slot, flat_packed, ahead = (
        slot.reshape(-1),
        packed.reshape(-1),
        _ahead(shape, side, length),
    )
    tiles, lows = scratch(_BLOCK * total * LANES), scratch(side * (length + 2 * PIECE))
    kept, used = np.empty((len(places), 2), np.int64), np.empty(total, np.bool_)
    for band in range(end - 1, begin - 1, -1):
        image, top, left, patch, patches = _band_of(band, shape, side, length)
        members = _list_rows(
            flat_slot,
            image * positions + patch * area,
            patches * area,
            channels,
            places,
            kept,
            used,
        )
        if members == 0:
            continue
        for first in range(0, channels, _BLOCK):
            count = min(_BLOCK, channels - first)
            for channel in range(count):
                origin = ((image * channels + first + channel) * height + top) * width + left
                line = channel // LANES * total * _TILE + channel % LANES * LANES
                split_plane(
                    x,
                    origin,
                    width,
                    height - top,
                    width - left,
                    layout,
                    order,
                    address(lows),
                    address(tiles),
                    line,
                    _TILE,
                    None,
                    ahead,
                )
            for group in range(0, count, LANES):
                for tile in range(total):
                    if used[tile]:
                        turn_tile(address(tiles), (group // LANES * total + tile) * _TILE)
            _emit(
                tiles, total * _TILE, kept[:members], grid, flat_packed, image * size + first, count
            )
    hold((tiles, lows))


@_jit
def _pack_kernel(count, threads, *arguments):
    fork(_pack_bands, count, threads, arguments)


@_jit
def _shrink_kernel(
    count, threads, x, shape, side, layout, order, places, norms, k, slot, grid, packed
):
    """Compute the norms, select and pack in one call, so that Python is entered only once."""
    fork(_norms_bands, count, threads, (x, shape, side, layout, order, places, norms))
    select_kernel(threads, norms, k, slot)
    fork(_pack_bands, count, threads, (x, shape, side, layout, order, places, slot, grid, packed))


@_inline
def _place_rows(slot, start, count, channels, places, offsets, used, tiles):
    """Note where the row of each cell starts, or -1 if it was dropped, and which tiles have rows.

    Tiles without any are set to zero here, once for all channels.
    """
    offsets[:] = -1
    used[:] = False
    for n in range(count):
        row = slot[start + n]
        if row >= 0:
            offsets[places[n]] = row * channels
            used[places[n] // LANES] = True
    for tile in range(len(used)):
        if not used[tile]:
            tiles[tile * _TILE : (tile + 1) * _TILE] = 0


@_inline
def _gather(packed, offsets, used, at, count, zeros, tiles):
    """Read ``count`` channels of the rows of a band into tiles."""
    for tile in range(len(used)):
        if used[tile]:
            if count == LANES:
                gather_tile(
                    packed, address(offsets), tile * LANES, at, zeros, None, tiles, tile * _TILE
                )
            else:
                gather_tile(
                    packed,
                    address(offsets),
                    tile * LANES,
                    at,
                    zeros,
                    first_lanes(np.uintp(count)),
                    tiles,
                    tile * _TILE,
                )
    # Prefetch the next channels while these are transformed. Dropped rows prefetch some other line,
    # which does no harm.
    for offset in offsets:
        prefetch(packed, offset + at + LANES)


@_jit
def _unpack_bands(
    begin, end, y, shape, side, layout, order, places, packed, k, slot, bias, finish, residual
):
    """Gather the rows of bands into tiles, invert the transform and write the pixels."""
    _, channels, height, width = shape
    length, _, total = layout
    area, positions, size = side * side, slot.shape[1], k * channels
    flat_slot, ahead, zeros = (
        slot.reshape(-1),
        _ahead(shape, side, length),
        np.zeros(LANES, np.float32),
    )
    tiles, lows = scratch(total * _TILE), scratch(side * (length + 2 * PIECE))
    offsets, used = np.empty(total * LANES, np.int64), np.empty(total, np.bool_)
    for band in range(end - 1, begin - 1, -1):
        image, top, left, patch, patches = _band_of(band, shape, side, length)
        _place_rows(
            flat_slot,
            image * positions + patch * area,
            patches * area,
            channels,
            places,
            offsets,
            used,
            tiles,
        )
        for first in range(0, channels, LANES):
            count = min(LANES, channels - first)
            _gather(
                packed, offsets, used, image * size + first, count, address(zeros), address(tiles)
            )
            for channel in range(count):
                origin = ((image * channels + first + channel) * height + top) * width + left
                merge_plane(
                    address(tiles),
                    channel * LANES,
                    _TILE,
                    address(lows),
                    layout,
                    order,
                    bias[first + channel],
                    y,
                    origin,
                    width,
                    height - top,
                    width - left,
                    ahead,
                    finish,
                    residual,
                )
    hold((tiles, lows, zeros, offsets))


@_jit
def _unpack_kernel(count, threads, *arguments):
    fork(_unpack_bands, count, threads, arguments)


@lru_cache(maxsize=256)
def _bands(shape: tuple[int, ...], levels: int, threads: int) -> tuple[int, tuple]:
    """Cut maps of a shape into bands.

    Wide bands are faster, but there should be at least one for each thread.

    Returns:
        The number of bands, and their description: shape, side, layout, order and places.
    """
    batch, _, height, width = shape
    least, lines = max(1 << levels, PIECE), batch * -(-height >> levels)
    length = min(max(_LENGTH, least), -(-width // least) * least)
    while length > least and lines * -(-width // length) < threads:
        length = -(-length // (2 * least)) * least
    order, places, tiles = band_layout(levels, length)
    return lines * -(-width // length), (
        shape,
        1 << levels,
        (length, length >> levels, tiles),
        order,
        places,
    )


def _cut(x: Tensor, levels: int) -> tuple:
    """Return what the kernels take first.

    These are the number of bands and threads, the address of the map, and how it is cut.
    """
    count, bands = _bands(tuple(x.shape), levels, torch.get_num_threads())
    return count, thread_count(count), address_of(x), *bands


def band_norms(x: Tensor, levels: int, norms: np.ndarray) -> None:
    """Compute the norms of a map."""
    _norms_kernel(*_cut(x, levels), norms)


def band_pack(x: Tensor, levels: int, slot: np.ndarray, grid: tuple, packed: np.ndarray) -> None:
    """Pack a map.

    ``grid`` tells whether to round, and the step, the lowest and the highest integer of the grid.
    """
    _pack_kernel(*_cut(x, levels), slot, grid, packed)


def band_shrink(
    x: Tensor,
    levels: int,
    norms: np.ndarray,
    k: int,
    slot: np.ndarray,
    grid: tuple,
    packed: np.ndarray,
) -> None:
    """Compute the norms, select the ``k`` largest of each image and pack them.

    ``grid`` is as in :func:`band_pack`.
    """
    _shrink_kernel(*_cut(x, levels), norms, k, slot, grid, packed)


def band_unpack(
    y: Tensor,
    levels: int,
    packed: np.uintp,
    k: int,
    slot: np.ndarray,
    bias: np.ndarray,
    finish: tuple,
    residual: np.uintp,
) -> None:
    """Unpack rows, ``k`` for each image, to a map.

    Rows and residual are given by their addresses. ``finish`` tells whether there is a residual,
    whether there are bounds, whether the map is streamed past the cache, and the two bounds.
    """
    _unpack_kernel(*_cut(y, levels), packed, k, slot, bias, finish, residual)
