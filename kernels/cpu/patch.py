"""The Haar transform of one patch in numba, vectorized over channels.

The pixels of a patch come from a channels_last map, or from a copy of a part of it. Level after
level, its cells leave their averages as a patch of half the size, in scratch memory.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .addresses import address, address_at
from .cells import average_cell, cell_at, merge_rows, split_norms, split_rows, spread_row
from .jit import jit
from .rows import copy_row, round_row, square_row

__all__ = ['Patch', 'Rows', 'Space', 'patch_norms', 'patch_pixels', 'patch_rows']

_jit = jit(fastmath={'contract'}, error_model='numpy', forceinline=True)


class Patch(NamedTuple):
    """Where the pixels of a patch lie, in one block of channels.

    Attributes:
        corner: Address of the upper left pixel. A pixel is a row of channels.
        right: How far apart the pixels of a line are, in values.
        down: How far apart its lines are, in values.
        side: Width and height in pixels.
        channels: How many channels a pixel has.
        following: How many values further on the next patch lies, which is prefetched meanwhile. If
            it is 0, nothing is prefetched.
    """

    corner: np.uintp
    right: int
    down: int
    side: int
    channels: int
    following: int


class Space(NamedTuple):
    """Scratch memory for the averages of two levels, which take turns.

    Attributes:
        low: Address of the averages of the finest level.
        spare: Address of those of the next level.
        block: How far apart two averages are, in values.
    """

    low: np.uintp
    spare: np.uintp
    block: int


class Rows(NamedTuple):
    """Where the kept coefficients of an image lie, in one block of channels.

    Attributes:
        values: Address of the coefficients of the whole batch.
        at: Index of the first row of the image.
        channels: How far apart its rows are, in values.
    """

    values: np.uintp
    at: int
    channels: int


@_jit
def _averages(low, side, space, count):
    """Return the patch of ``side`` x ``side`` averages that one level leaves to the next."""
    return Patch(low, space.block, side * space.block, side, count, 0)


@_jit
def _cell(patch, row, col):
    """Return a cell of a patch."""
    corner = address_at(patch.corner, row * 2 * patch.down + col * 2 * patch.right)
    return cell_at(corner, patch.right, patch.down)


@_jit
def _ahead(patch, row):
    """Return how far ahead of a row of cells to prefetch.

    This is two lines on, or for the last row of cells the first lines of the next patch.
    """
    if patch.following == 0:
        return 0
    last = row == patch.side // 2 - 1
    return patch.following - 2 * row * patch.down if last else 2 * patch.down


@_jit
def patch_norms(patch, space, norms, start):
    """Transform a patch and add the squares of its coefficients to ``norms``, from ``start`` on.

    While two lines are transformed, the next two are prefetched.
    """
    count, low, spare = patch.channels, space.low, space.spare
    cells = patch.side // 2
    while cells > 0:
        for row in range(cells):
            ahead = _ahead(patch, row)
            for col in range(cells):
                cell = row * cells + col
                average = address_at(low, cell * space.block)
                sums = split_norms(_cell(patch, row, col), average, count, ahead)
                index = start + cells * cells + 3 * cell
                norms[index] += sums[0]
                norms[index + 1] += sums[1]
                norms[index + 2] += sums[2]
        patch = _averages(low, cells, space, count)
        low, spare, cells = spare, low, cells // 2
    norms[start] += square_row(patch.corner, count)


@_jit
def _row_or(other, rows, slot):
    """Return the address of a kept row, or another address if ``slot`` says that it was dropped."""
    return address_at(rows.values, rows.at + slot * rows.channels) if slot >= 0 else other


@_jit
def _round_kept(source, start, grid, packed, rows, slot, count):
    """Round a row to its place in ``packed``, unless it was dropped."""
    if slot >= 0:
        round_row(source, start, grid, packed, rows.at + slot * rows.channels, count)


@_jit
def patch_rows(patch, space, details, kept, start, rows, packed, grid):
    """Transform a patch and write its kept coefficients.

    ``kept[start]`` and what follows are the slots of its positions. The coefficients go straight to
    ``rows``. If there is a grid, they pass through ``details``, are rounded and go to ``packed``,
    an array of the memory that ``rows`` describes.
    """
    count, low, spare = patch.channels, space.low, space.spare
    first = address(details)
    second, third = address_at(first, space.block), address_at(first, 2 * space.block)
    cells = patch.side // 2
    while cells > 0:
        for row in range(cells):
            ahead = _ahead(patch, row)
            for col in range(cells):
                cell, pixels = row * cells + col, _cell(patch, row, col)
                average = address_at(low, cell * space.block)
                index = start + cells * cells + 3 * cell
                i, j, k = kept[index], kept[index + 1], kept[index + 2]
                if i & j & k < 0:  # all dropped
                    average_cell(pixels, average, count, ahead)
                elif grid is None:
                    kept_rows = (
                        _row_or(first, rows, i),
                        _row_or(second, rows, j),
                        _row_or(third, rows, k),
                    )
                    split_rows(pixels, average, kept_rows, count, ahead)
                else:
                    split_rows(pixels, average, (first, second, third), count, ahead)
                    _round_kept(details, 0, grid, packed, rows, i, count)
                    _round_kept(details, space.block, grid, packed, rows, j, count)
                    _round_kept(details, 2 * space.block, grid, packed, rows, k, count)
        patch = _averages(low, cells, space, count)
        low, spare, cells = spare, low, cells // 2
    if kept[start] >= 0:
        if grid is None:
            copy_row(patch.corner, _row_or(first, rows, kept[start]), count)
        else:
            copy_row(patch.corner, first, count)
            _round_kept(details, 0, grid, packed, rows, kept[start], count)


@_jit
def patch_pixels(rows, kept, start, space, zeros, bias, patch, streamed):
    """Invert the transform of a patch from its kept rows, add the bias and write its pixels.

    ``kept`` and ``start`` are as in :func:`patch_rows`. Rows that were dropped are read from
    ``zeros``, which needs no branch. Only the finest level is written to the patch, past the cache
    if ``streamed``.
    """
    count, source, spare = patch.channels, space.low, space.spare
    copy_row(_row_or(zeros, rows, kept[start]), source, count)
    cells = 1
    while cells < patch.side:
        last = 2 * cells == patch.side
        target = patch if last else _averages(spare, 2 * cells, space, count)
        shift = bias if last else zeros
        for row in range(cells):
            for col in range(cells):
                cell, pixels = row * cells + col, _cell(target, row, col)
                average = address_at(source, cell * space.block)
                index = start + cells * cells + 3 * cell
                i, j, k = kept[index], kept[index + 1], kept[index + 2]
                if i & j & k < 0:  # all dropped
                    spread_row(average, shift, pixels, count, last and streamed)
                else:
                    details = (
                        _row_or(zeros, rows, i),
                        _row_or(zeros, rows, j),
                        _row_or(zeros, rows, k),
                    )
                    merge_rows(average, details, shift, pixels, count, last and streamed)
        source, spare, cells = spare, source, 2 * cells
