"""Haar norms, pack and unpack in numba for channels_last float32 maps, strip by strip.

Norms go through a map forwards, pack and unpack go backwards: what was read or written last is
still in the cache. Maps are prefetched two lines ahead. The hardware prefetcher foresees one line
after another, not the lines of a patch, which lie a row of the map apart.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from .addresses import address, address_at, hold, scratch
from .finish import Finish, put_finished
from .jit import jit
from .memory import address_of
from .patch import Rows, Space, patch_norms, patch_pixels, patch_rows
from .select import select_kernel
from .simd import LANES, first_lanes, load
from .strip_layout import (
    LINE,
    Map,
    first_patch,
    patch_of,
    pixel_of,
    read_border,
    strip_of,
    write_border,
)
from .threads import fork, thread_count

__all__ = ['strip_norms', 'strip_pack', 'strip_shrink', 'strip_unpack']

_index = np.uintp  # unsigned: numba checks signed indices for negative values
_inline = jit(error_model='numpy', fastmath={'contract'}, forceinline=True)
_jit = jit(error_model='numpy', fastmath={'contract'})


@_jit
def _norms_strips(begin, end, source, norms):
    """Sum the squared coefficients of strips over the channels."""
    source = Map(*source)
    side, area, block = 1 << source.levels, 1 << 2 * source.levels, source.block
    positions, flat_norms = norms.shape[1], norms.reshape(-1)
    pixels, low = scratch(side * max(side, LINE) * block), scratch(area // 4 * block)
    spare = scratch(max(1, area // 16) * block)
    space = Space(address(low), address(spare), block)
    for number in range(begin, end):
        strip = strip_of(number, source.shape, source.levels)
        start = strip.image * positions + strip.patch * area
        flat_norms[start : start + strip.patches * area] = 0
        for first in range(0, source.shape[1], block):
            if not strip.inside:
                read_border(source, strip, first, pixels)
            patches = first_patch(source, strip, first, pixels)
            for member in range(strip.patches):
                patch_norms(patch_of(patches, member, 1), space, flat_norms, start + member * area)
    hold((pixels, low, spare))


@_jit
def _norms_kernel(count, threads, *arguments):
    """Run :func:`_norms_strips` on all strips."""
    fork(_norms_strips, count, threads, arguments)


@_jit
def _pack_strips(begin, end, source, slot, grid, packed):
    """Transform strips and write their kept rows. Strips of which nothing is kept are skipped."""
    source = Map(*source)
    side, area, block = 1 << source.levels, 1 << 2 * source.levels, source.block
    channels, size = source.shape[1], packed.shape[1] * packed.shape[2]
    positions, flat_slot, flat_packed = slot.shape[1], slot.reshape(-1), packed.reshape(-1)
    pixels, low = scratch(side * max(side, LINE) * block), scratch(area // 4 * block)
    spare, details = scratch(max(1, area // 16) * block), scratch(3 * block)
    space = Space(address(low), address(spare), block)
    for number in range(end - 1, begin - 1, -1):
        strip = strip_of(number, source.shape, source.levels)
        start = strip.image * positions + strip.patch * area
        if flat_slot[start : start + strip.patches * area].max() < 0:
            continue
        for first in range(0, channels, block):
            if not strip.inside:
                read_border(source, strip, first, pixels)
            patches = first_patch(source, strip, first, pixels)
            rows = Rows(address(packed), strip.image * size + first, channels)
            for member in range(strip.patches):
                # Strips run backwards but their patches forwards: from the last patch of this
                # strip, the next one to prefetch is the first of the strip before.
                following = 1 if member + 1 < strip.patches else 1 - 2 * strip.patches
                patch_rows(
                    patch_of(patches, member, following),
                    space,
                    details,
                    flat_slot,
                    start + member * area,
                    rows,
                    flat_packed,
                    grid,
                )
    hold((pixels, low, spare, details))


@_jit
def _pack_kernel(count, threads, *arguments):
    """Run :func:`_pack_strips` on all strips."""
    fork(_pack_strips, count, threads, arguments)


@_jit
def _shrink_kernel(count, threads, source, norms, k, slot, grid, packed):
    """Compute the norms, select and pack in one call, so that Python is entered only once."""
    fork(_norms_strips, count, threads, (source, norms))
    select_kernel(threads, norms, k, slot)
    fork(_pack_strips, count, threads, (source, slot, grid, packed))


@_inline
def _finish_row(y, at, count, finish):
    """Finish ``count`` channels of a pixel."""
    at, count = _index(at), _index(count)
    whole = count - count % _index(LANES)
    for n in range(_index(0), whole, _index(LANES)):
        put_finished(y, at + n, load(y, at + n, None), None, finish, False)
    if whole < count:
        mask = first_lanes(count - whole)
        put_finished(y, at + whole, load(y, at + whole, mask), mask, finish, False)


@_inline
def _finish_strip(target, strip, first, finish):
    """Finish the pixels of a strip that were written, for channels from ``first`` on."""
    count = min(target.block, target.shape[1] - first)
    for i in range(strip.rows):
        for j in range(strip.cols):
            _finish_row(target.values, pixel_of(target, strip, i, j) + first, count, finish)


@_jit
def _unpack_strips(begin, end, target, rows, slot, bias, finish):
    """Invert the transform of strips and write their pixels.

    ``rows`` is the address of the kept rows and their number in an image. ``target`` and ``finish``
    are what :class:`Map` and :class:`Finish` hold.
    """
    target, finish = Map(*target), Finish(*finish)
    side, area, block = 1 << target.levels, 1 << 2 * target.levels, target.block
    channels, positions, flat_slot = target.shape[1], slot.shape[1], slot.reshape(-1)
    pixels, zeros = scratch(side * max(side, LINE) * block), np.zeros(block, np.float32)
    one, other = scratch(area // 4 * block), scratch(area // 4 * block)
    space = Space(address(one), address(other), block)
    for number in range(end - 1, begin - 1, -1):
        strip = strip_of(number, target.shape, target.levels)
        start = strip.image * positions + strip.patch * area
        for first in range(0, channels, block):
            patches = first_patch(target, strip, first, pixels)
            kept = Rows(rows[0], strip.image * rows[1] * channels + first, channels)
            for member in range(strip.patches):
                patch_pixels(
                    kept,
                    flat_slot,
                    start + member * area,
                    space,
                    address(zeros),
                    address_at(address(bias), first),
                    patch_of(patches, member, 0),
                    strip.inside and finish.streamed,
                )
            if not strip.inside:
                write_border(target, strip, first, pixels)
            if finish.has_residual or finish.bounded:
                _finish_strip(target, strip, first, finish)
    hold((pixels, zeros, one, other))


@_jit
def _unpack_kernel(count, threads, *arguments):
    """Run :func:`_unpack_strips` on all strips."""
    fork(_unpack_strips, count, threads, arguments)


def _cut(x: Tensor, levels: int) -> tuple[int, int, tuple]:
    """Return what the kernels take first: the number of strips and threads, and the map.

    A block has as many channels as keep a strip in the cache. The map is a plain tuple of what
    :class:`Map` holds, which numba recognizes faster than a named one.
    """
    batch, channels, height, width = shape = tuple(x.shape)
    count = batch * -(-height >> levels) * -(-width // max(1 << levels, LINE))
    block = min(channels, max(LANES, (1 << 16) >> 2 * levels))
    return count, thread_count(count), (address_of(x), shape, levels, block)


def strip_norms(x: Tensor, levels: int, norms: np.ndarray) -> None:
    """Compute the norms of a map."""
    _norms_kernel(*_cut(x, levels), norms)


def strip_pack(
    x: Tensor, levels: int, slot: np.ndarray, grid: tuple | None, packed: np.ndarray
) -> None:
    """Pack a map. ``grid`` is what :func:`rows.grid_of` returns, or None to keep float32."""
    _pack_kernel(*_cut(x, levels), slot, grid, packed)


def strip_shrink(
    x: Tensor,
    levels: int,
    norms: np.ndarray,
    k: int,
    slot: np.ndarray,
    grid: tuple | None,
    packed: np.ndarray,
) -> None:
    """Compute the norms, select the ``k`` largest of each image and pack them.

    ``grid`` is as in :func:`strip_pack`.
    """
    _shrink_kernel(*_cut(x, levels), norms, k, slot, grid, packed)


def strip_unpack(
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
