"""Haar norms, pack and unpack in numba for float32 maps of any size, layout and depth.

This file works on channels_last maps, strip by strip. Contiguous maps go to :mod:`bands`.

There is no padded copy, no layout copy and no array of all coefficients. Patches are independent
and their sums have one order, so results do not depend on the number of threads. Norms go through a
map forwards, pack and unpack go backwards: what was read or written last is still in the cache.
Maps are prefetched two lines ahead. The hardware prefetcher foresees one line after another, not
the lines of a patch, which lie a row of the map apart.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..layout import position_count
from .bands import band_norms, band_pack, band_shrink, band_unpack
from .jit import jit
from .memory import address_of, array_of, as_map, empty
from .patch import (
    LINE,
    channel_block,
    patch_norms,
    patch_pixels,
    patch_rows,
    read_strip,
    strip_of,
    write_strip,
)
from .plane import put_finished
from .select import select_kernel
from .simd import LANES, address, first_lanes, hold, load, scratch
from .threads import fork, thread_count

__all__ = [
    'haar_norms',
    'haar_pack',
    'haar_pack_int8',
    'haar_shrink',
    'haar_shrink_int8',
    'haar_unpack',
]

_UNROUNDED = False, np.float32(0), np.float32(0), np.float32(0)  # no grid to round to
# Maps of at least this many bytes are written past the cache. Through the cache, each line would
# first be read from memory and then replaced.
_STREAMED = 1 << 23
_index = np.uintp  # unsigned: numba checks signed indices for negative values
_jit = jit(error_model='numpy', fastmath={'contract'})


@_jit
def _norms_strips(begin, end, x, shape, levels, block, norms):
    """Sum the squared coefficients of strips over the channels."""
    _, channels, height, width = shape
    side, area, length = 1 << levels, 1 << 2 * levels, max(1 << levels, LINE)
    positions, flat_norms = norms.shape[1], norms.reshape(-1)
    pixels, low = scratch(side * length * block), scratch(area // 4 * block)
    spare = scratch(max(1, area // 16) * block)
    for strip in range(begin, end):
        image, top, left, patch, members, inside = strip_of(strip, shape, levels)
        start = image * positions + patch * area
        flat_norms[start : start + members * area] = 0
        for first in range(0, channels, block):
            count = min(block, channels - first)
            if inside:
                source, origin = x, ((image * height + top) * width + left) * channels + first
                right, down = channels, width * channels
            else:
                read_strip(x, shape, image, top, left, side, length, first, count, pixels, block)
                source, origin, right, down = address(pixels), 0, block, length * block
            following = side * right if inside else 0
            for member in range(members):
                patch_norms(
                    source,
                    origin + member * side * right,
                    right,
                    down,
                    count,
                    side,
                    address(low),
                    address(spare),
                    block,
                    flat_norms,
                    start + member * area,
                    following,
                )
    hold((pixels, low, spare))


@_jit
def _norms_kernel(count, threads, *arguments):
    fork(_norms_strips, count, threads, arguments)


@_jit
def _pack_strips(begin, end, x, shape, levels, block, slot, grid, packed):
    """Transform strips and write their kept rows. Strips of which nothing is kept are skipped."""
    _, channels, height, width = shape
    side, area, length = 1 << levels, 1 << 2 * levels, max(1 << levels, LINE)
    positions, size = slot.shape[1], packed.shape[1] * packed.shape[2]
    flat_slot, flat_packed = slot.reshape(-1), packed.reshape(-1)
    pixels, low = scratch(side * length * block), scratch(area // 4 * block)
    spare, details = scratch(max(1, area // 16) * block), scratch(3 * block)
    for strip in range(end - 1, begin - 1, -1):
        image, top, left, patch, members, inside = strip_of(strip, shape, levels)
        start = image * positions + patch * area
        if flat_slot[start : start + members * area].max() < 0:
            continue
        for first in range(0, channels, block):
            count = min(block, channels - first)
            if inside:
                source, origin = x, ((image * height + top) * width + left) * channels + first
                right, down = channels, width * channels
            else:
                read_strip(x, shape, image, top, left, side, length, first, count, pixels, block)
                source, origin, right, down = address(pixels), 0, block, length * block
            # Strips run backwards but their patches forwards: from the last patch of this strip,
            # the next one to prefetch is the first of the strip before.
            for member in range(members):
                following = (
                    (1 if member + 1 < members else 1 - 2 * members) * side * right if inside else 0
                )
                patch_rows(
                    source,
                    origin + member * side * right,
                    right,
                    down,
                    count,
                    side,
                    address(low),
                    address(spare),
                    details,
                    block,
                    flat_slot,
                    start + member * area,
                    grid,
                    flat_packed,
                    image * size + first,
                    channels,
                    following,
                )
    hold((pixels, low, spare, details))


@_jit
def _pack_kernel(count, threads, *arguments):
    fork(_pack_strips, count, threads, arguments)


@_jit
def _shrink_kernel(count, threads, x, shape, levels, block, norms, k, slot, grid, packed):
    """Compute the norms, select and pack in one call, so that Python is entered only once."""
    fork(_norms_strips, count, threads, (x, shape, levels, block, norms))
    select_kernel(threads, norms, k, slot)
    fork(_pack_strips, count, threads, (x, shape, levels, block, slot, grid, packed))


@_jit
def _finish(y, at, count, finish, residual):
    """Add the residual to ``count`` channels of a pixel and clamp them. NaN stays."""
    at, count = _index(at), _index(count)
    whole = count - count % _index(LANES)
    for n in range(_index(0), whole, _index(LANES)):
        put_finished(y, at + n, load(y, at + n, None), None, finish, residual)
    if whole < count:
        mask = first_lanes(count - whole)
        put_finished(y, at + whole, load(y, at + whole, mask), mask, finish, residual)


@_jit
def _unpack_strips(begin, end, y, shape, levels, block, packed, k, slot, bias, finish, residual):
    """Invert the transform of strips and write their pixels.

    Strips inside the map are written straight to it. Those at the border pass through ``pixels``,
    from which only the part inside the map is copied.
    """
    _, channels, height, width = shape
    has_residual, bounded, streamed, _, _ = finish
    side, area, length = 1 << levels, 1 << 2 * levels, max(1 << levels, LINE)
    positions, size, flat_slot = slot.shape[1], k * channels, slot.reshape(-1)
    pixels, zeros = scratch(side * length * block), np.zeros(block, np.float32)
    one, other = scratch(area // 4 * block), scratch(area // 4 * block)
    for strip in range(end - 1, begin - 1, -1):
        image, top, left, patch, members, inside = strip_of(strip, shape, levels)
        rows, cols = min(side, height - top), min(length, width - left)
        for first in range(0, channels, block):
            count = min(block, channels - first)
            if inside:
                target, origin = y, ((image * height + top) * width + left) * channels + first
                right, down = channels, width * channels
            else:
                target, origin, right, down = address(pixels), 0, block, length * block
            for member in range(members):
                patch_pixels(
                    packed,
                    image * size + first,
                    channels,
                    count,
                    flat_slot,
                    image * positions + (patch + member) * area,
                    side,
                    address(one),
                    address(other),
                    block,
                    address(zeros),
                    address(bias),
                    first,
                    target,
                    origin + member * side * right,
                    right,
                    down,
                    inside and streamed,
                )
            if not inside:
                write_strip(y, shape, image, top, left, side, length, first, count, pixels, block)
            if has_residual or bounded:
                for i in range(rows):
                    for j in range(cols):
                        at = ((image * height + top + i) * width + left + j) * channels + first
                        _finish(y, at, count, finish, residual)
    hold((pixels, zeros, one, other))


@_jit
def _unpack_kernel(count, threads, *arguments):
    fork(_unpack_strips, count, threads, arguments)


def _strips(x: Tensor, levels: int) -> tuple:
    """Return what the kernels take first: the number of strips and threads, and how the map is cut.

    The latter is its address, shape, levels and block of channels.
    """
    batch, channels, height, width = shape = tuple(x.shape)
    count = batch * -(-height >> levels) * -(-width // max(1 << levels, LINE))
    return count, thread_count(count), address_of(x), shape, levels, channel_block(channels, levels)


def _grid(step: Tensor, low: int, high: int) -> tuple:
    """Return the grid as the kernels take it, with the step read from its tensor."""
    return True, np.float32(step.item()), np.float32(low), np.float32(high)


def haar_norms(x: Tensor, levels: int) -> Tensor:
    """Compute :func:`mmwcc.kernels.haar_norms` of a float32 map."""
    norms = empty((x.shape[0], position_count(x.shape[2], x.shape[3], levels)))
    x, channels_last = as_map(x)
    if channels_last:
        _norms_kernel(*_strips(x, levels), array_of(norms))
    else:
        band_norms(x, levels, array_of(norms))
    return norms


def _pack(x: Tensor, slot: Tensor, k: int, levels: int, grid: tuple, dtype: torch.dtype) -> Tensor:
    """Allocate the rows and pack the map by the kernel of its memory format."""
    packed = empty((x.shape[0], k, x.shape[1]), dtype)
    arrays = array_of(slot.contiguous()), grid, array_of(packed)
    x, channels_last = as_map(x)
    if channels_last:
        _pack_kernel(*_strips(x, levels), *arrays)
    else:
        band_pack(x, levels, *arrays)
    return packed


def haar_pack(x: Tensor, slot: Tensor, k: int, levels: int) -> Tensor:
    """Compute :func:`mmwcc.kernels.haar_pack` of a float32 map."""
    return _pack(x, slot, k, levels, _UNROUNDED, torch.float32)


def haar_pack_int8(
    x: Tensor, slot: Tensor, k: int, levels: int, step: Tensor, low: int, high: int
) -> Tensor:
    """Compute :func:`mmwcc.kernels.haar_pack_int8` of a float32 map."""
    return _pack(x, slot, k, levels, _grid(step, low, high), torch.int8)


def _shrink(
    x: Tensor, k: int, levels: int, grid: tuple, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Allocate the results and shrink the map by the kernel of its memory format."""
    shape = x.shape[0], position_count(x.shape[2], x.shape[3], levels)
    packed, slot = empty((x.shape[0], k, x.shape[1]), dtype), empty(shape, torch.int32)
    arrays = np.empty(shape, np.float32), k, array_of(slot), grid, array_of(packed)
    x, channels_last = as_map(x)
    if channels_last:
        _shrink_kernel(*_strips(x, levels), *arrays)
    else:
        band_shrink(x, levels, *arrays)
    return packed, slot


def haar_shrink(x: Tensor, k: int, levels: int) -> tuple[Tensor, Tensor]:
    """Compute :func:`mmwcc.kernels.haar_shrink` of a float32 map."""
    return _shrink(x, k, levels, _UNROUNDED, torch.float32)


def haar_shrink_int8(
    x: Tensor, k: int, levels: int, step: Tensor, low: int, high: int
) -> tuple[Tensor, Tensor]:
    """Compute :func:`mmwcc.kernels.haar_shrink_int8` of a float32 map."""
    return _shrink(x, k, levels, _grid(step, low, high), torch.int8)


def haar_unpack(
    rows: Tensor,
    slot: Tensor,
    bias: Tensor | None,
    height: int,
    width: int,
    levels: int,
    channels_last: bool,
    residual: Tensor | None,
    low: float | None,
    high: float | None,
) -> Tensor:
    """Compute :func:`mmwcc.kernels.haar_unpack` of float32 rows."""
    batch, k, channels = rows.shape
    rows, bounded = rows.contiguous(), low is not None or high is not None
    y = (
        empty((batch, height, width, channels)).permute(0, 3, 1, 2)
        if channels_last
        else empty((batch, channels, height, width))
    )
    if residual is not None:
        residual = residual.float().contiguous(
            memory_format=torch.channels_last if channels_last else torch.contiguous_format
        )
    # Only whole vectors can be streamed. In a channels_last map they are vectors of channels, and
    # must not be read again to add a residual or to clamp. In a contiguous map they are vectors of
    # pixels.
    whole = (
        channels % LANES == 0 and residual is None and not bounded
        if channels_last
        else width % LANES == 0
    )
    finish = (
        residual is not None,
        bounded,
        whole and y.nbytes >= _STREAMED,
        np.float32(-np.inf if low is None else low),
        np.float32(np.inf if high is None else high),
    )
    shift = np.zeros(channels, np.float32) if bias is None else array_of(bias.float().contiguous())
    arrays = (
        address_of(rows),
        k,
        array_of(slot.contiguous()),
        shift,
        finish,
        address_of(y if residual is None else residual),
    )
    if channels_last:
        _unpack_kernel(*_strips(y, levels), *arrays)
    else:
        band_unpack(y, levels, *arrays)
    return y
