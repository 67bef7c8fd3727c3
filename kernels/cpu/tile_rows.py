"""Rows of kept coefficients into tiles and out of them, in numba.

The transform of a band leaves its coefficients in tiles, 16 cells by 16 channels (see
:mod:`plane`). The rows of an image hold the channels of one coefficient after the other. Rows are
written 64 channels at a time: writing them as single lines of 64 bytes, far apart, takes 10 to 18 %
longer (two Zen 5 cores).
"""

from __future__ import annotations

import numpy as np

from .addresses import address, address_at, prefetch
from .jit import jit
from .rows import round_row
from .simd import LANES, first_lanes, load, store
from .tiles import gather_tile, turn_tile

__all__ = ['TILE', 'gather_tiles', 'list_rows', 'place_rows', 'turn_tiles', 'write_rows']

TILE = LANES * LANES  # values of a tile
_jit = jit(error_model='numpy', fastmath={'contract'}, forceinline=True)


@_jit
def list_rows(slot, channels, places, kept, used):
    """List the kept cells of a band and return how many there are.

    ``slot`` are the slots of its positions. ``kept`` gets where each kept one is in the tiles and
    where its row starts in the output. ``used`` tells which tiles have any.
    """
    used[:] = False
    members = 0
    for n in range(len(slot)):
        row = slot[n]
        if row >= 0:
            kept[members, 0], kept[members, 1] = places[n] * LANES, row * channels
            used[places[n] // LANES] = True
            members += 1
    return members


@_jit
def turn_tiles(tiles, used):
    """Transpose the tiles of 16 channels that have a kept cell, so that channels lie together."""
    for tile in range(len(used)):
        if used[tile]:
            turn_tile(tiles, tile * TILE)


@_jit
def _copy_lanes(source, target, count):
    """Copy 16 values from an address to another, or the first ``count`` if they are fewer."""
    if count >= LANES:
        store(target, 0, load(source, 0, None), None)
    else:
        mask = first_lanes(np.uintp(count))
        store(target, 0, load(source, 0, mask), mask)


@_jit
def write_rows(tiles, size, kept, packed, at, count, grid):
    """Write ``count`` channels of the kept rows, or their levels if there is a grid.

    The tiles of 16 channels take ``size`` values. The channels begin at ``at`` in the rows of
    ``packed``.
    """
    for n in range(len(kept)):
        source, target = kept[n, 0], kept[n, 1] + at
        for first in range(0, count, LANES):
            if grid is None:
                _copy_lanes(
                    address_at(address(tiles), source),
                    address_at(address(packed), target),
                    count - first,
                )
            else:
                round_row(tiles, source, grid, packed, target, min(LANES, count - first))
            source, target = source + size, target + LANES


@_jit
def place_rows(slot, channels, places, offsets, used, tiles):
    """Note where the row of each cell starts, or -1 if it was dropped, and which tiles have rows.

    ``slot`` is as in :func:`list_rows`. Tiles without any row are set to zero here, once for all
    channels.
    """
    offsets[:] = -1
    used[:] = False
    for n in range(len(slot)):
        row = slot[n]
        if row >= 0:
            offsets[places[n]] = row * channels
            used[places[n] // LANES] = True
    for tile in range(len(used)):
        if not used[tile]:
            tiles[tile * TILE : (tile + 1) * TILE] = 0


@_jit
def gather_tiles(rows, offsets, used, zeros, tiles, count):
    """Read ``count`` channels, at most 16, of the rows of a band into tiles.

    ``rows`` is the address that ``offsets`` count from. Dropped rows are read from ``zeros``.
    """
    places = address(offsets)
    for tile in range(len(used)):
        if used[tile]:
            first, target = tile * LANES, address_at(tiles, tile * TILE)
            if count == LANES:
                gather_tile(rows, places, first, zeros, None, target)
            else:
                gather_tile(rows, places, first, zeros, first_lanes(np.uintp(count)), target)
    # Prefetch the next channels while these are transformed. Dropped rows prefetch some other line,
    # which does no harm.
    for offset in offsets:
        prefetch(rows, offset + LANES)
