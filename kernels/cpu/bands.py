"""Haar norms, pack and unpack in numba for contiguous float32 maps, band by band.

A band is transformed channel by channel. In one channel it is one or a few lines of consecutive
memory. They are prefetched, because the next channel lies a plane further, beyond what the hardware
prefetcher foresees. The rows, which hold channels, are transposed to and from tiles.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .addresses import address, address_at, hold, scratch
from .finish import Finish
from .jit import jit
from .memory import address_of
from .plane import PIECE, Band, Lines, Plane, band_layout, merge_plane, split_plane
from .select import select_kernel
from .simd import LANES
from .threads import fork, thread_count
from .tile_rows import TILE, gather_tiles, list_rows, place_rows, turn_tiles, write_rows

__all__ = ['band_norms', 'band_pack', 'band_shrink', 'band_unpack']

_LENGTH = 128  # pixels in a line of a band, at most
_AHEAD = 2048  # how many values ahead of their use memory is prefetched: 8 kB
_BLOCK = 4 * LANES  # channels whose squares are summed, or whose rows are written, at a time

_inline = jit(error_model='numpy', fastmath={'contract'}, forceinline=True)
_jit = jit(error_model='numpy', fastmath={'contract'})


class Map(NamedTuple):
    """A contiguous map that is cut into bands.

    Attributes:
        values: Its address.
        shape: Its shape (B, C, H, W).
        side: Width and height of a patch in pixels.
        length: Width of a band in pixels.
    """

    values: np.uintp
    shape: tuple[int, int, int, int]
    side: int
    length: int


class Place(NamedTuple):
    """Where a band lies.

    Attributes:
        image: Number of its image.
        top: Its first line of pixels.
        left: Its first column of pixels.
        patch: Number of its first patch within the image.
        patches: How many of its patches lie in the padded map.
    """

    image: int
    top: int
    left: int
    patch: int
    patches: int


@_inline
def _place_of(number, source):
    """Return where the band of a number lies, counted over the whole batch."""
    _, _, height, width = source.shape
    side, length = source.side, source.length
    rows, cols = (height + side - 1) // side, (width + side - 1) // side
    bands = (width + length - 1) // length
    image, place = number // (rows * bands), number % (rows * bands)
    row, col = place // bands, place % bands * (length // side)
    return Place(image, row * side, col * side, row * cols + col, min(length // side, cols - col))


@_inline
def _plane_of(source, place, channel):
    """Return a channel of a band.

    About ``_AHEAD`` values of the band are prefetched ahead of their use: one channel, or several
    small ones. Channels lie ``height * width`` values apart.
    """
    _, channels, height, width = source.shape
    ahead = max(1, _AHEAD // (source.side * source.length)) * height * width
    return Plane(
        source.values,
        ((place.image * channels + channel) * height + place.top) * width + place.left,
        width,
        height - place.top,
        width - place.left,
        np.uintp(ahead),
    )


@_jit
def _norms_bands(begin, end, source, band, norms):
    """Sum the squared coefficients of bands over the channels.

    The sums are kept in the order of the tiles. ``band.places`` then puts them in position order.
    """
    source, band = Map(*source), Band(*band)
    channels, area = source.shape[1], source.side * source.side
    positions, flat_norms, places = norms.shape[1], norms.reshape(-1), band.places
    sums, part = scratch(band.tiles * LANES), scratch(band.tiles * LANES)
    lows = scratch(source.side * (band.length + 2 * PIECE))
    lines = Lines(address(part), LANES)
    for number in range(begin, end):
        place = _place_of(number, source)
        sums[:] = 0
        for first in range(0, channels, _BLOCK):  # sums of partial sums are more accurate
            part[:] = 0
            for channel in range(first, min(first + _BLOCK, channels)):
                split_plane(_plane_of(source, place, channel), band, address(lows), lines, ())
            sums += part
        start = place.image * positions + place.patch * area
        for n in range(place.patches * area):
            flat_norms[start + n] = sums[places[n]]
    hold((lows, part))


@_jit
def _norms_kernel(count, threads, *arguments):
    """Run :func:`_norms_bands` on all bands."""
    fork(_norms_bands, count, threads, arguments)


@_jit
def _pack_bands(begin, end, source, band, slot, grid, packed):
    """Transform bands and write their kept rows.

    The channels of a block are split into tiles first. Only tiles with a kept cell are transposed.
    """
    source, band = Map(*source), Band(*band)
    channels, area, size = source.shape[1], source.side * source.side, band.tiles * TILE
    positions, flat_slot, flat_packed = slot.shape[1], slot.reshape(-1), packed.reshape(-1)
    tiles, lows = scratch(_BLOCK // LANES * size), scratch(source.side * (band.length + 2 * PIECE))
    kept, used = np.empty((len(band.places), 2), np.int64), np.empty(band.tiles, np.bool_)
    for number in range(end - 1, begin - 1, -1):
        place = _place_of(number, source)
        start = place.image * positions + place.patch * area
        slots = flat_slot[start : start + place.patches * area]
        members = list_rows(slots, channels, band.places, kept, used)
        if members == 0:
            continue
        for first in range(0, channels, _BLOCK):
            count = min(_BLOCK, channels - first)
            for n in range(count):
                line = address_at(address(tiles), n // LANES * size + n % LANES * LANES)
                plane = _plane_of(source, place, first + n)
                split_plane(plane, band, address(lows), Lines(line, TILE), None)
            for group in range(0, count, LANES):
                turn_tiles(address_at(address(tiles), group // LANES * size), used)
            at = place.image * packed.shape[1] * packed.shape[2] + first
            write_rows(tiles, size, kept[:members], flat_packed, at, count, grid)
    hold((tiles, lows))


@_jit
def _pack_kernel(count, threads, *arguments):
    """Run :func:`_pack_bands` on all bands."""
    fork(_pack_bands, count, threads, arguments)


@_jit
def _shrink_kernel(count, threads, source, band, norms, chosen, grid, packed):
    """Compute the norms, select and pack in one call, so that Python is entered only once.

    ``chosen`` is how many positions of an image are kept, and the array for their slots.
    """
    fork(_norms_bands, count, threads, (source, band, norms))
    select_kernel(threads, norms, chosen[0], chosen[1])
    fork(_pack_bands, count, threads, (source, band, chosen[1], grid, packed))


@_jit
def _unpack_bands(begin, end, target, band, rows, slot, bias, finish):
    """Gather the rows of bands into tiles, invert the transform and write the pixels.

    ``rows`` is the address of the kept rows and their number in an image.
    """
    target, band, finish = Map(*target), Band(*band), Finish(*finish)
    channels, area = target.shape[1], target.side * target.side
    positions, flat_slot, zeros = slot.shape[1], slot.reshape(-1), np.zeros(LANES, np.float32)
    tiles, lows = scratch(band.tiles * TILE), scratch(target.side * (band.length + 2 * PIECE))
    offsets, used = np.empty(band.tiles * LANES, np.int64), np.empty(band.tiles, np.bool_)
    for number in range(end - 1, begin - 1, -1):
        place = _place_of(number, target)
        start = place.image * positions + place.patch * area
        slots = flat_slot[start : start + place.patches * area]
        place_rows(slots, channels, band.places, offsets, used, tiles)
        for first in range(0, channels, LANES):
            count = min(LANES, channels - first)
            source = address_at(rows[0], place.image * rows[1] * channels + first)
            gather_tiles(source, offsets, used, address(zeros), address(tiles), count)
            for channel in range(count):
                lines = Lines(address_at(address(tiles), channel * LANES), TILE)
                plane = _plane_of(target, place, first + channel)
                merge_plane(plane, band, address(lows), lines, bias[first + channel], finish)
    hold((tiles, lows, zeros, offsets))


@_jit
def _unpack_kernel(count, threads, *arguments):
    """Run :func:`_unpack_bands` on all bands."""
    fork(_unpack_bands, count, threads, arguments)


@lru_cache(maxsize=256)
def _bands(shape: tuple[int, ...], levels: int, threads: int) -> tuple[int, Band]:
    """Cut maps of a shape into bands.

    Wide bands are faster, but there should be at least one for each thread.

    Returns:
        The number of bands and their layout.
    """
    batch, _, height, width = shape
    least, lines = max(1 << levels, PIECE), batch * -(-height >> levels)
    length = min(max(_LENGTH, least), -(-width // least) * least)
    while length > least and lines * -(-width // length) < threads:
        length = -(-length // (2 * least)) * least
    return lines * -(-width // length), band_layout(levels, length)


def _cut(x: Tensor, levels: int) -> tuple[int, int, tuple, tuple]:
    """Return what the kernels take first: the number of bands and threads, the map and the layout.

    The last two are plain tuples of what :class:`Map` and :class:`Band` hold, which numba
    recognizes faster than named ones.
    """
    shape = tuple(x.shape)
    count, band = _bands(shape, levels, torch.get_num_threads())
    source = address_of(x), shape, 1 << levels, band.length
    return count, thread_count(count), source, tuple(band)


def band_norms(x: Tensor, levels: int, norms: np.ndarray) -> None:
    """Compute the norms of a map."""
    _norms_kernel(*_cut(x, levels), norms)


def band_pack(
    x: Tensor, levels: int, slot: np.ndarray, grid: tuple | None, packed: np.ndarray
) -> None:
    """Pack a map. ``grid`` is what :func:`rows.grid_of` returns, or None to keep float32."""
    _pack_kernel(*_cut(x, levels), slot, grid, packed)


def band_shrink(
    x: Tensor,
    levels: int,
    norms: np.ndarray,
    k: int,
    slot: np.ndarray,
    grid: tuple | None,
    packed: np.ndarray,
) -> None:
    """Compute the norms, select the ``k`` largest of each image and pack them.

    ``grid`` is as in :func:`band_pack`.
    """
    _shrink_kernel(*_cut(x, levels), norms, (k, slot), grid, packed)


def band_unpack(
    y: Tensor,
    levels: int,
    rows: tuple[np.uintp, int],
    slot: np.ndarray,
    bias: np.ndarray,
    finish: tuple,
) -> None:
    """Unpack rows to a map.

    ``rows`` is their address and their number in an image. ``finish`` is what
    :class:`finish.Finish` holds, as a plain tuple.
    """
    _unpack_kernel(*_cut(y, levels), rows, slot, bias, finish)
