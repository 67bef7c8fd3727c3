"""Haar norms, pack and unpack in numba for float32 maps of any size and layout, patch by patch.

A patch is read into a scratch block of positions x channels that stays in the cache, transformed there, and only its
norms or its kept rows leave it: no padded copy, no layout copy, no array of all coefficients. Patches are independent
and summed by nobody else, so results do not depend on the number of threads.
"""
from __future__ import annotations

import numba
import numpy as np
from torch import Tensor

from ..layout import padded_size
from .threads import use_torch_threads

__all__ = ['haar_norms', 'haar_pack', 'haar_unpack']

_BLOCK = 64  # channels at a time: 8x8 positions of them are 16 kB, half of a first-level cache
# Reassociation lets sums over channels use vector registers; NaN and infinity keep their meaning.
_jit = numba.njit(parallel=True, cache=True, nogil=True, fastmath={'reassoc', 'contract'})
_inline = numba.njit(cache=True, nogil=True, fastmath={'reassoc', 'contract'})


@_inline
def _read(x, channels_last, top, left, side, first, count, pixels):
    """Copy one patch into ``pixels`` (side * side, block), zeros outside the map; x is (H, W, C) or (C, H, W)."""
    height, width = (x.shape[0], x.shape[1]) if channels_last else (x.shape[1], x.shape[2])
    for i in range(side):
        for j in range(side):
            row = pixels[i * side + j]
            inside = top + i < height and left + j < width
            if not inside:
                row[:count] = 0
            elif channels_last:
                source = x[top + i, left + j]
                for c in range(count):
                    row[c] = source[first + c]
    if not channels_last:
        cols = min(side, width - left)
        for c in range(count):
            for i in range(min(side, height - top)):
                source = x[first + c, top + i]
                for j in range(cols):
                    pixels[i * side + j, c] = source[left + j]


@_inline
def _write(y, channels_last, top, left, side, first, count, pixels, bias):
    """Copy ``pixels`` plus bias into the part of a patch that lies inside the map."""
    height, width = (y.shape[0], y.shape[1]) if channels_last else (y.shape[1], y.shape[2])
    rows, cols = min(side, height - top), min(side, width - left)
    if channels_last:
        for i in range(rows):
            for j in range(cols):
                target, row = y[top + i, left + j], pixels[i * side + j]
                for c in range(count):
                    target[first + c] = row[c] + bias[first + c]
    else:
        for c in range(count):
            for i in range(rows):
                target = y[first + c, top + i]
                for j in range(cols):
                    target[left + j] = pixels[i * side + j, c] + bias[first + c]


# One array each for input, details and averages: with more, or with one that may be either of two, the compiler cannot
# prove the loops over channels free of overlap and does not vectorize them.
@_inline
def _split(source, side, low, coefficients, count):
    """Transform one level: ``source`` (side * side, block) into averages ``low`` and details in position order."""
    half, cells = np.float32(0.5), side // 2
    for cell in range(cells * cells):
        corner = 2 * (cell // cells) * side + 2 * (cell % cells)
        a, b, c, d = source[corner], source[corner + 1], source[corner + side], source[corner + side + 1]
        first = cells * cells + 3 * cell
        horizontal, vertical, diagonal = coefficients[first], coefficients[first + 1], coefficients[first + 2]
        average = low[cell]
        for n in range(count):
            total_even, change_even = a[n] + c[n], a[n] - c[n]
            total_odd, change_odd = b[n] + d[n], b[n] - d[n]
            horizontal[n] = (change_even + change_odd) * half
            vertical[n] = (total_even - total_odd) * half
            diagonal[n] = (change_even - change_odd) * half
            average[n] = (total_even + total_odd) * half


@_inline
def _merge(low, coefficients, cells, target, count):
    """Invert :func:`_split`: averages ``low`` (cells * cells, block) and details into ``target``, twice as wide."""
    half, side = np.float32(0.5), 2 * cells
    for cell in range(cells * cells):
        corner = 2 * (cell // cells) * side + 2 * (cell % cells)
        a, b, c, d = target[corner], target[corner + 1], target[corner + side], target[corner + side + 1]
        first = cells * cells + 3 * cell
        horizontal, vertical, diagonal = coefficients[first], coefficients[first + 1], coefficients[first + 2]
        average = low[cell]
        for n in range(count):
            mean, change = average[n] * half, horizontal[n] * half
            tilt, cross = vertical[n] * half, diagonal[n] * half
            total_even, total_odd = mean + tilt, mean - tilt
            change_even, change_odd = change + cross, change - cross
            a[n] = total_even + change_even
            b[n] = total_odd + change_odd
            c[n] = total_even - change_even
            d[n] = total_odd - change_odd


@_inline
def _forward(pixels, scratch, coefficients, side, count):
    """Transform ``pixels`` (side * side, block), which is overwritten, into ``coefficients`` in position order."""
    source, low = pixels, scratch
    while side > 1:
        _split(source, side, low, coefficients, count)
        source, low = low, source
        side //= 2
    coefficients[0, :count] = source[0, :count]


@_inline
def _backward(coefficients, one, other, side, count):
    """Invert :func:`_forward` with two blocks of scratch, of which the one that holds the pixels is returned."""
    source, target = one, other
    source[0, :count] = coefficients[0, :count]
    cells = 1
    while cells < side:
        _merge(source, coefficients, cells, target, count)
        source, target = target, source
        cells *= 2
    return source


@_jit
def _norms_kernel(x, channels_last, levels, rows, cols, norms):
    side, channels = 1 << levels, x.shape[3] if channels_last else x.shape[1]
    area = side * side
    for patch in numba.prange(x.shape[0] * rows * cols):
        image, place = patch // (rows * cols), patch % (rows * cols)
        pixels, scratch = np.empty((area, _BLOCK), np.float32), np.empty((area, _BLOCK), np.float32)
        coefficients = np.empty((area, _BLOCK), np.float32)
        target = norms[image, place * area:(place + 1) * area]
        target[:] = 0
        for first in range(0, channels, _BLOCK):
            count = min(_BLOCK, channels - first)
            _read(x[image], channels_last, place // cols * side, place % cols * side, side, first, count, pixels)
            _forward(pixels, scratch, coefficients, side, count)
            for j in range(area):
                total, row = np.float32(0), coefficients[j]
                for n in range(count):
                    total += row[n] * row[n]
                target[j] += total


@_jit
def _pack_kernel(x, channels_last, levels, rows, cols, slot, packed):
    side, channels = 1 << levels, x.shape[3] if channels_last else x.shape[1]
    area = side * side
    for patch in numba.prange(x.shape[0] * rows * cols):
        image, place = patch // (rows * cols), patch % (rows * cols)
        kept = slot[image, place * area:(place + 1) * area]
        if kept.max() >= 0:
            pixels, scratch = np.empty((area, _BLOCK), np.float32), np.empty((area, _BLOCK), np.float32)
            coefficients = np.empty((area, _BLOCK), np.float32)
            for first in range(0, channels, _BLOCK):
                count = min(_BLOCK, channels - first)
                _read(x[image], channels_last, place // cols * side, place % cols * side, side, first, count, pixels)
                _forward(pixels, scratch, coefficients, side, count)
                for j in range(area):
                    if kept[j] >= 0:
                        target, row = packed[image, kept[j]], coefficients[j]
                        for n in range(count):
                            target[first + n] = row[n]


@_jit
def _unpack_kernel(packed, slot, bias, channels_last, levels, rows, cols, y):
    side, channels = 1 << levels, packed.shape[2]
    area = side * side
    for patch in numba.prange(packed.shape[0] * rows * cols):
        image, place = patch // (rows * cols), patch % (rows * cols)
        kept = slot[image, place * area:(place + 1) * area]
        pixels, scratch = np.empty((area, _BLOCK), np.float32), np.empty((area, _BLOCK), np.float32)
        coefficients = np.empty((area, _BLOCK), np.float32)
        for first in range(0, channels, _BLOCK):
            count = min(_BLOCK, channels - first)
            for j in range(area):
                row = coefficients[j]
                if kept[j] >= 0:
                    source = packed[image, kept[j]]
                    for n in range(count):
                        row[n] = source[first + n]
                else:
                    row[:count] = 0
            result = _backward(coefficients, pixels, scratch, side, count)
            _write(y[image], channels_last, place // cols * side, place % cols * side, side, first, count, result,
                   bias)


def _view(x: Tensor) -> tuple[np.ndarray, bool]:
    """Return an array over ``x``, (B, H, W, C) where the channels are the fastest axis, else (B, C, H, W)."""
    channels_last = x.stride(1) == 1 and x.shape[1] > 1
    if channels_last:
        return x.detach().permute(0, 2, 3, 1).numpy(), True
    return x.detach().numpy(), False


def _patches(height: int, width: int, levels: int) -> tuple[int, int]:
    return padded_size(height, levels) >> levels, padded_size(width, levels) >> levels


def haar_norms(x: Tensor, levels: int) -> Tensor:
    """Compute :func:`mmwcc.kernels.haar_norms` of a float32 map."""
    use_torch_threads()
    rows, cols = _patches(*x.shape[2:], levels)
    norms = x.new_empty(x.shape[0], rows * cols << 2 * levels)
    _norms_kernel(*_view(x), levels, rows, cols, norms.numpy())
    return norms


def haar_pack(x: Tensor, slot: Tensor, k: int, levels: int) -> Tensor:
    """Compute :func:`mmwcc.kernels.haar_pack` of a float32 map."""
    use_torch_threads()
    packed = x.new_empty(x.shape[0], k, x.shape[1])
    _pack_kernel(*_view(x), levels, *_patches(*x.shape[2:], levels), slot.numpy(), packed.numpy())
    return packed


def haar_unpack(rows: Tensor, slot: Tensor, bias: Tensor | None, height: int, width: int, levels: int,
                channels_last: bool) -> Tensor:
    """Compute :func:`mmwcc.kernels.haar_unpack` of float32 rows."""
    use_torch_threads()
    channels = rows.shape[2]
    bias = rows.new_zeros(channels) if bias is None else bias.detach().to(rows.dtype)
    shape = (rows.shape[0], height, width, channels) if channels_last else (rows.shape[0], channels, height, width)
    y = rows.new_empty(shape)
    _unpack_kernel(rows.detach().numpy(), slot.numpy(), bias.numpy(), channels_last, levels,
                   *_patches(height, width, levels), y.numpy())
    return y.permute(0, 3, 1, 2) if channels_last else y
