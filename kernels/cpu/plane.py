"""The Haar transform of a band of one channel in numba, vectorized over its width.

A band is a row of patches of a contiguous map, ``length`` pixels wide. Its coefficients in 16
channels form tiles. A tile holds 16 cells of one level and one kind (cA, cH, cV or cD) in 16
channels, one line for each channel. Tiles are numbered from coarse to fine: first those of cA, then
level by level 16 cells after the other, the three kinds of each.

The rows of cells of a level come in a special order. The averages of upper lines fill one half of
what the coarser level averages, those of lower lines the other half. So only the finest level needs
to know about rows.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from ..layout import fold
from .jit import jit
from .patch import merge_cell, split_cell
from .simd import LANES, clamp, first_lanes, load, splat, store, stream
from .tiles import evens, left_zip, odds, prefetch, prefetch_to_write, right_zip

__all__ = ['PIECE', 'band_layout', 'merge_plane', 'pieces_of', 'put_finished', 'split_plane']

PIECE = 2 * LANES  # pixels of a line transformed at a time: even and odd ones fill a vector each
_ALL, _WHOLE = (
    (None, None, None, None),
    (LANES, LANES, LANES, LANES),
)  # masks of four vectors, and values inside
_ZERO = np.float32(0)
_index = np.uintp  # unsigned: numba checks signed indices for negative values

_jit = jit(fastmath={'contract'}, error_model='numpy', forceinline=True)


@lru_cache
def band_layout(levels: int, length: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Lay out the coefficients of a band ``length`` pixels wide in tiles.

    Returns:
        Three things: the rows of cells of the finest level in the order of the tiles; where in the
        tiles each position of the band is, in position order, as tile * 16 + cell; and the number
        of tiles.
    """
    cols, order = length >> levels, torch.zeros(1, dtype=torch.int64)
    tiles, details = -(-cols // LANES), []
    for depth in range(levels):
        width = cols << depth
        cell = order.argsort()[:, None] * width + torch.arange(width)
        tile = tiles + 3 * (cell // LANES)
        details.append(
            ((tile[..., None] + torch.arange(3)) * LANES + (cell % LANES)[..., None])[
                None, ..., None
            ]
        )
        tiles += 3 * -(-cell.numel() // LANES)
        # The next finer level: first the upper line of each of these rows, then the lower lines.
        rows, order = order, torch.cat([2 * order, 2 * order + 1])
    places = fold(torch.arange(cols).reshape(1, 1, cols, 1), details).flatten()
    return rows.numpy(), places.numpy(), tiles


@_jit
def pieces_of(cells):
    """Return how many vectors hold this many cells."""
    return (cells + LANES - 1) // LANES


@_jit
def _keep(tiles, at, value, squared):
    """Write a vector of coefficients, or add their squares instead if ``squared`` is not None."""
    if squared is None:
        store(tiles, at, value, None)
    else:
        store(tiles, at, load(tiles, at, None) + value * value, None)


@_jit
def _split_piece(source, upper, lower, masks, low, at, tiles, tile, step, squared):
    """Transform 2x32 pixels, or as many averages of a finer level, into 16 cells.

    Even and odd pixels of a line go to a vector each, so that all four pixels of a cell are in the
    same lane.
    """
    a, b = load(source, upper, masks[0]), load(source, upper + LANES, masks[1])
    c, d = load(source, lower, masks[2]), load(source, lower + LANES, masks[3])
    average, change, tilt, cross = split_cell(evens(a, b), odds(a, b), evens(c, d), odds(c, d))
    store(low, at, average, None)
    _keep(tiles, tile, change, squared)
    _keep(tiles, tile + step, tilt, squared)
    _keep(tiles, tile + 2 * step, cross, squared)


@_jit
def _inside(cols, rows):
    """Return how many values of four vectors, 2x32 pixels, lie inside the map.

    The map ends ``cols`` pixels to the right and ``rows`` below their first one.
    """
    left, right = min(LANES, max(0, cols)), min(LANES, max(0, cols - LANES))
    upper, lower = rows > 0, rows > 1
    return _index(left * upper), _index(right * upper), _index(left * lower), _index(right * lower)


@_jit
def _split_step(source, upper, pitch, masks, ahead, low, at, tiles, tile, step, squared):
    """Transform 2x32 pixels of a map and prefetch those ``ahead`` of them."""
    upper, lower = _index(upper), _index(upper + pitch)
    for place in (upper + ahead, lower + ahead):
        prefetch(source, place)
        prefetch(source, place + LANES)
    _split_piece(source, upper, lower, masks, low, at, tiles, tile, step, squared)


@_jit
def split_plane(
    source, origin, pitch, rows, cols, layout, order, lows, tiles, start, step, squared, ahead
):
    """Transform a band of one channel into its lines of the tiles.

    The lines begin at ``tiles[start]`` and are ``step`` apart. The band begins at
    ``source[origin]``, and the map ends ``rows`` and ``cols`` from there. ``layout`` is the length,
    patches and tiles of a band, and ``order`` lists its rows of cells. ``lows`` has room for the
    averages of all levels. The averages of a level may be followed by values without meaning, up to
    a whole vector.
    """
    length, patches, total = layout
    width, pieces = _index(step), length // PIECE
    cells, at = len(order) * pieces * LANES, _index(0)
    place = start + (total - 3 * (cells // LANES)) * step
    here = _index(place)
    for row in order:
        upper = origin + 2 * row * pitch
        whole = min(pieces, cols // PIECE) if 2 * row + 1 < rows else 0
        for n in range(whole):
            _split_step(
                source, upper + n * PIECE, pitch, _ALL, ahead, lows, at, tiles, here, width, squared
            )
            at, here = at + _index(LANES), here + _index(3) * width
        for n in range(whole, pieces):
            a, b, c, d = _inside(cols - n * PIECE, rows - 2 * row)
            masks = first_lanes(a), first_lanes(b), first_lanes(c), first_lanes(d)
            _split_step(
                source,
                upper + n * PIECE,
                pitch,
                masks,
                ahead,
                lows,
                at,
                tiles,
                here,
                width,
                squared,
            )
            at, here = at + _index(LANES), here + _index(3) * width
    begin = _index(0)
    # Coarser levels: averages of upper lines are the first half, those of lower lines the second.
    while cells > patches:
        cells //= 4
        pieces = pieces_of(cells)
        place -= 3 * pieces * step
        upper, lower, at, here = (
            begin,
            begin + _index(2 * cells),
            begin + _index(4 * cells),
            _index(place),
        )
        begin = at
        for _ in range(pieces):
            _split_piece(lows, upper, lower, _ALL, lows, at, tiles, here, width, squared)
            upper, lower, at, here = (
                upper + _index(PIECE),
                lower + _index(PIECE),
                at + _index(LANES),
                here + _index(3) * width,
            )
    for n in range(pieces_of(cells)):
        _keep(tiles, _index(start + n * step), load(lows, begin + _index(n * LANES), None), squared)


@_jit
def put_finished(y, at, value, mask, finish, residual):
    """Add the residual to a vector of pixels, clamp it, and write it."""
    has_residual, bounded, streamed, lowest, highest = finish
    if has_residual:
        value = value + load(residual, at, mask)
    if bounded:
        value = clamp(value, splat(lowest), splat(highest))
    if streamed:
        stream(y, at, value)
    else:
        store(y, at, value, mask)


@_jit
def _put(y, at, value, inside, finish, residual):
    """Finish and write the first ``inside`` pixels of a vector.

    Streamed maps have whole vectors only, so a part of one is never streamed.
    """
    if inside == LANES:
        put_finished(y, at, value, None, finish, residual)
    elif inside > 0:
        has_residual, bounded, _, lowest, highest = finish
        put_finished(
            y,
            at,
            value,
            first_lanes(inside),
            (has_residual, bounded, False, lowest, highest),
            residual,
        )


@_jit
def _put_piece(y, upper, pitch, lines, inside, ahead, finish, residual):
    """Write 2x32 pixels and prefetch what will be needed for those ``ahead``."""
    upper, lower = _index(upper), _index(upper + pitch)
    for place in (upper + ahead, lower + ahead):
        _expect(y, place, finish, residual)
        if inside[1] > 0:  # otherwise that line may belong to another thread
            _expect(y, place + LANES, finish, residual)
    _put(y, upper, lines[0], inside[0], finish, residual)
    _put(y, upper + _index(LANES), lines[1], inside[1], finish, residual)
    _put(y, lower, lines[2], inside[2], finish, residual)
    _put(y, lower + _index(LANES), lines[3], inside[3], finish, residual)


@_jit
def _expect(y, place, finish, residual):
    """Prefetch a place of the residual, and of the map unless it is streamed past the cache."""
    if finish[0]:
        prefetch(residual, place)
    if not finish[2]:
        prefetch_to_write(y, place)


@_jit
def _merge_piece(low, at, tiles, tile, step, offset):
    """Invert the transform of 16 cells. Return the upper and the lower line, two vectors each."""
    a, b, c, d = merge_cell(
        load(low, at, None),
        load(tiles, tile, None),
        load(tiles, tile + step, None),
        load(tiles, tile + 2 * step, None),
        offset,
    )
    return left_zip(a, b), right_zip(a, b), left_zip(c, d), right_zip(c, d)


@_jit
def merge_plane(
    tiles,
    start,
    step,
    lows,
    layout,
    order,
    bias,
    y,
    origin,
    pitch,
    rows,
    cols,
    ahead,
    finish,
    residual,
):
    """Invert :func:`split_plane`, add the bias and write the band to ``y``.

    The pixels are finished as in :func:`_put`.
    """
    length, patches, _ = layout
    cells, at, place, width = patches, 0, start + pieces_of(patches) * step, _index(step)
    for n in range(pieces_of(cells)):
        store(lows, _index(n * LANES), load(tiles, _index(start + n * step), None), None)
    while cells < len(order) * length // 2:
        pieces = pieces_of(cells)
        target = at + pieces * LANES + PIECE
        # Go backwards: where the last piece is not full, it writes beyond the upper lines, into the
        # beginning of the lower ones, which the first piece then replaces.
        for n in range(pieces - 1, -1, -1):
            a, b, c, d = _merge_piece(
                lows,
                _index(at + n * LANES),
                tiles,
                _index(place + 3 * n * step),
                width,
                splat(_ZERO),
            )
            upper = _index(target + n * PIECE)
            lower = upper + _index(2 * cells)
            store(lows, upper, a, None)
            store(lows, upper + _index(LANES), b, None)
            store(lows, lower, c, None)
            store(lows, lower + _index(LANES), d, None)
        at, place, cells = target, place + 3 * pieces * step, 4 * cells
    low, here, pieces = _index(at), _index(place), length // PIECE
    for row in order:
        upper = origin + 2 * row * pitch
        whole = min(pieces, cols // PIECE) if 2 * row + 1 < rows else 0
        for n in range(whole):
            lines = _merge_piece(lows, low, tiles, here, width, splat(bias))
            _put_piece(y, upper + n * PIECE, pitch, lines, _WHOLE, ahead, finish, residual)
            low, here = low + _index(LANES), here + _index(3) * width
        for n in range(whole, pieces):
            inside = _inside(cols - n * PIECE, rows - 2 * row)
            lines = _merge_piece(lows, low, tiles, here, width, splat(bias))
            _put_piece(y, upper + n * PIECE, pitch, lines, inside, ahead, finish, residual)
            low, here = low + _index(LANES), here + _index(3) * width
