"""The Haar transform of a band of one channel in numba, vectorized over its width.

A band is a row of patches of a contiguous map. Its coefficients in 16 channels form tiles. A tile
holds 16 cells of one level and one kind (cA, cH, cV or cD) in 16 channels, one line for each
channel. Tiles are numbered from coarse to fine: first those of cA, then level by level 16 cells
after the other, the three kinds of each.

The rows of cells of a level come in a special order. The averages of upper lines fill one half of
what the coarser level averages, those of lower lines the other half. So only the finest level needs
to know about rows.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from ..layout import fold
from .addresses import address_at, prefetch, prefetch_to_write
from .cells import merge_cell, split_cell
from .finish import put_finished
from .jit import jit
from .simd import LANES, first_lanes, load, splat, store
from .tiles import evens, left_zip, odds, right_zip

__all__ = ['PIECE', 'Band', 'Lines', 'Plane', 'band_layout', 'merge_plane', 'split_plane']

PIECE = 2 * LANES  # pixels of a line transformed at a time: even and odd ones fill a vector each
_ALL = None, None, None, None  # masks of four whole vectors
_WHOLE = LANES, LANES, LANES, LANES  # how many of their values are inside the map
_ZERO = np.float32(0)
_index = np.uintp  # unsigned: numba checks signed indices for negative values

_jit = jit(fastmath={'contract'}, error_model='numpy', forceinline=True)


class Band(NamedTuple):
    """How every band of a map is laid out.

    Attributes:
        length: Width in pixels.
        patches: How many patches it has.
        tiles: How many tiles its coefficients form in 16 channels.
        order: Rows of cells of the finest level, in the order of the tiles.
        places: Where in the tiles each position of the band is, in position order, as
            tile * 16 + cell.
    """

    length: int
    patches: int
    tiles: int
    order: np.ndarray
    places: np.ndarray


class Plane(NamedTuple):
    """A band of one channel in a map.

    Attributes:
        values: Address of the map.
        origin: Index of the upper left pixel of the band.
        pitch: How far apart two lines are, in values.
        rows: How many lines the map has from there on.
        cols: How many columns it has from there on.
        ahead: How far ahead to prefetch, in values.
    """

    values: np.uintp
    origin: int
    pitch: int
    rows: int
    cols: int
    ahead: np.uintp


class Lines(NamedTuple):
    """The lines of one channel in the tiles.

    Attributes:
        first: Address of the first.
        step: How far apart they are, in values.
    """

    first: np.uintp
    step: int


@lru_cache
def band_layout(levels: int, length: int) -> Band:
    """Lay out the coefficients of a band ``length`` pixels wide in tiles."""
    cols, order = length >> levels, torch.zeros(1, dtype=torch.int64)
    tiles, details = -(-cols // LANES), []
    for depth in range(levels):
        width = cols << depth
        cell = (order.argsort()[:, None] * width + torch.arange(width))[..., None]
        tile = tiles + 3 * (cell // LANES) + torch.arange(3)
        details.append((tile * LANES + cell % LANES)[None, ..., None])
        tiles += 3 * -(-cell.numel() // LANES)
        # The next finer level: first the upper line of each of these rows, then the lower lines.
        rows, order = order, torch.cat([2 * order, 2 * order + 1])
    places = fold(torch.arange(cols).reshape(1, 1, cols, 1), details).flatten()
    return Band(length, cols, tiles, rows.numpy(), places.numpy())


@_jit
def _pieces_of(cells):
    """Return how many vectors hold this many cells."""
    return (cells + LANES - 1) // LANES


@_jit
def _keep(place, value, squared):
    """Write a vector of coefficients, or add their squares instead if ``squared`` is not None."""
    if squared is None:
        store(place, 0, value, None)
    else:
        store(place, 0, load(place, 0, None) + value * value, None)


@_jit
def _split_piece(upper, lower, masks, low, tile, step, squared):
    """Transform 2x32 pixels, or as many averages of a finer level, into 16 cells.

    Even and odd pixels of a line go to a vector each, so that all four pixels of a cell are in the
    same lane. The averages are written to ``low``, and the three details to lines of three tiles,
    the first at ``tile``. All places are addresses.
    """
    a, b = load(upper, 0, masks[0]), load(upper, LANES, masks[1])
    c, d = load(lower, 0, masks[2]), load(lower, LANES, masks[3])
    average, change, tilt, cross = split_cell(evens(a, b), odds(a, b), evens(c, d), odds(c, d))
    store(low, 0, average, None)
    _keep(tile, change, squared)
    _keep(address_at(tile, step), tilt, squared)
    _keep(address_at(tile, 2 * step), cross, squared)


@_jit
def _inside(cols, rows):
    """Return how many values of four vectors, 2x32 pixels, lie inside the map.

    The map ends ``cols`` pixels to the right and ``rows`` below their first one.
    """
    left, right = min(LANES, max(0, cols)), min(LANES, max(0, cols - LANES))
    upper, lower = rows > 0, rows > 1
    return _index(left * upper), _index(right * upper), _index(left * lower), _index(right * lower)


@_jit
def _masks(inside):
    """Return the masks of four vectors from how many of their values lie inside the map."""
    a, b, c, d = inside
    return first_lanes(a), first_lanes(b), first_lanes(c), first_lanes(d)


@_jit
def _split_step(plane, at, masks, low, tile, step, squared):
    """Transform 2x32 pixels of a map, from index ``at`` on, and prefetch those further on."""
    upper = address_at(plane.values, at)
    lower = address_at(upper, plane.pitch)
    for line in (upper, lower):
        prefetch(line, plane.ahead)
        prefetch(line, plane.ahead + _index(LANES))
    _split_piece(upper, lower, masks, low, tile, step, squared)


@_jit
def split_plane(plane, band, lows, lines, squared):
    """Transform a band of one channel into its lines of the tiles.

    ``lows`` is the address of room for the averages of all levels. The averages of a level may be
    followed by values without meaning, up to a whole vector. With ``squared`` not None, the squares
    of the coefficients are added to the tiles instead.
    """
    order, step, pieces = band.order, lines.step, band.length // PIECE
    cells, low = len(order) * pieces * LANES, lows
    place = band.tiles - 3 * (cells // LANES)
    tile = address_at(lines.first, place * step)
    for row in order:
        upper = plane.origin + 2 * row * plane.pitch
        whole = min(pieces, plane.cols // PIECE) if 2 * row + 1 < plane.rows else 0
        for n in range(whole):
            _split_step(plane, upper + n * PIECE, _ALL, low, tile, step, squared)
            low, tile = address_at(low, LANES), address_at(tile, 3 * step)
        for n in range(whole, pieces):
            masks = _masks(_inside(plane.cols - n * PIECE, plane.rows - 2 * row))
            _split_step(plane, upper + n * PIECE, masks, low, tile, step, squared)
            low, tile = address_at(low, LANES), address_at(tile, 3 * step)
    begin = lows
    # Coarser levels: averages of upper lines are the first half, those of lower lines the second.
    while cells > band.patches:
        cells //= 4
        pieces = _pieces_of(cells)
        place -= 3 * pieces
        upper, lower = begin, address_at(begin, 2 * cells)
        begin = address_at(begin, 4 * cells)
        low, tile = begin, address_at(lines.first, place * step)
        for _ in range(pieces):
            _split_piece(upper, lower, _ALL, low, tile, step, squared)
            upper, lower = address_at(upper, PIECE), address_at(lower, PIECE)
            low, tile = address_at(low, LANES), address_at(tile, 3 * step)
    for n in range(_pieces_of(cells)):
        _keep(address_at(lines.first, n * step), load(begin, n * LANES, None), squared)


@_jit
def _put(y, at, value, inside, finish):
    """Finish and write the first ``inside`` pixels of a vector.

    Streamed maps have whole vectors only, so a part of one is never streamed.
    """
    if inside == LANES:
        put_finished(y, at, value, None, finish, finish.streamed)
    elif inside > 0:
        put_finished(y, at, value, first_lanes(inside), finish, False)


@_jit
def _expect(y, place, finish):
    """Prefetch a place of the residual, and of the map unless it is streamed past the cache."""
    if finish.has_residual:
        prefetch(finish.residual, place)
    if not finish.streamed:
        prefetch_to_write(y, place)


@_jit
def _put_piece(plane, at, pixels, inside, finish):
    """Write 2x32 pixels, four vectors, and prefetch what will be needed for those ``ahead``."""
    y, upper, lower = plane.values, _index(at), _index(at + plane.pitch)
    for place in (upper + plane.ahead, lower + plane.ahead):
        _expect(y, place, finish)
        if inside[1] > 0:  # otherwise that line may belong to another thread
            _expect(y, place + LANES, finish)
    _put(y, upper, pixels[0], inside[0], finish)
    _put(y, upper + _index(LANES), pixels[1], inside[1], finish)
    _put(y, lower, pixels[2], inside[2], finish)
    _put(y, lower + _index(LANES), pixels[3], inside[3], finish)


@_jit
def _merge_piece(low, tile, step, offset):
    """Invert the transform of 16 cells. Return the upper and the lower line, two vectors each."""
    a, b, c, d = merge_cell(
        load(low, 0, None),
        load(tile, 0, None),
        load(address_at(tile, step), 0, None),
        load(address_at(tile, 2 * step), 0, None),
        offset,
    )
    return left_zip(a, b), right_zip(a, b), left_zip(c, d), right_zip(c, d)


@_jit
def _merge_level(low, tile, step, cells, target):
    """Invert the transform of a level into the averages of the next finer one.

    Go backwards: where the last piece is not full, it writes beyond the upper lines, into the
    beginning of the lower ones, which the first piece then replaces.
    """
    for n in range(_pieces_of(cells) - 1, -1, -1):
        pixels = _merge_piece(
            address_at(low, n * LANES), address_at(tile, 3 * n * step), step, splat(_ZERO)
        )
        upper = address_at(target, n * PIECE)
        lower = address_at(upper, 2 * cells)
        store(upper, 0, pixels[0], None)
        store(upper, LANES, pixels[1], None)
        store(lower, 0, pixels[2], None)
        store(lower, LANES, pixels[3], None)


@_jit
def merge_plane(plane, band, lows, lines, bias, finish):
    """Invert :func:`split_plane`, add the bias, and finish and write the pixels of the band."""
    order, step = band.order, lines.step
    cells, low = band.patches, lows
    for n in range(_pieces_of(cells)):
        store(lows, n * LANES, load(address_at(lines.first, n * step), 0, None), None)
    tile = address_at(lines.first, _pieces_of(cells) * step)
    while cells < len(order) * band.length // 2:
        pieces = _pieces_of(cells)
        target = address_at(low, pieces * LANES + PIECE)
        _merge_level(low, tile, step, cells, target)
        low, tile, cells = target, address_at(tile, 3 * pieces * step), 4 * cells
    pieces = band.length // PIECE
    for row in order:
        upper = plane.origin + 2 * row * plane.pitch
        whole = min(pieces, plane.cols // PIECE) if 2 * row + 1 < plane.rows else 0
        for n in range(whole):
            pixels = _merge_piece(low, tile, step, splat(bias))
            _put_piece(plane, upper + n * PIECE, pixels, _WHOLE, finish)
            low, tile = address_at(low, LANES), address_at(tile, 3 * step)
        for n in range(whole, pieces):
            inside = _inside(plane.cols - n * PIECE, plane.rows - 2 * row)
            pixels = _merge_piece(low, tile, step, splat(bias))
            _put_piece(plane, upper + n * PIECE, pixels, inside, finish)
            low, tile = address_at(low, LANES), address_at(tile, 3 * step)
