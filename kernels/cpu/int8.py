"""Integer arithmetic of 8-bit layers on the CPU.

Quantization runs in numba, and products run in oneDNN where it computes them exactly.
"""

from __future__ import annotations

import platform
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .jit import jit
from .memory import array_of, empty, values_of
from .rows import grid_of, round_row
from .threads import fork, thread_count
from .tiles import transpose_tile

__all__ = ['int8_linear', 'quantize_int8']

_TILE = 64  # pixels and channels of a contiguous map that are transposed at a time: 16 kB
_SUMS = 1 << 20  # sums scaled at a time: 4 MB, which are still in the cache when read again
_EXACT = 1024  # int8 vectors this long have products of at most 2**24, exact in float32
_jit = jit()


@_jit
def _gather(x, first, pixel, channel, count, block, pixels):
    """Copy ``count`` pixels of ``block`` channels to rows of ``_TILE`` channels.

    Where pixels are consecutive in memory, 8x8 values at a time are transposed in registers. The
    rest is copied one by one.
    """
    tiled_count, tiled_block = (count // 8 * 8, block // 8 * 8) if pixel == 1 else (0, 0)
    for c in range(0, tiled_block, 8):
        for p in range(0, tiled_count, 8):
            transpose_tile(x, first + c * channel + p, channel, pixels, p * _TILE + c, _TILE)
    for c in range(block):
        for p in range(tiled_count if c < tiled_block else 0, count):
            pixels[p * _TILE + c] = x[first + c * channel + p * pixel]


@_jit
def _quantize_tiles(begin, end, x, strides, size, grid, rows):
    """Round tiles of pixels to rows.

    ``size`` is how many lines an image has, how many pixels a line and how many channels a pixel.
    ``strides`` are those from image to image, line to line, pixel to pixel and channel to channel.
    Where channels are consecutive, rows are rounded straight from the map. Elsewhere tiles of them
    are gathered first.
    """
    image, following, pixel, channel = strides
    lines, length, channels = size
    tiles = (length + _TILE - 1) // _TILE
    for n in range(begin, end):
        line, tile = n // tiles, n % tiles * _TILE
        start = line // lines * image + line % lines * following + tile * pixel
        count, row = min(_TILE, length - tile), line * length + tile
        if channel == 1:
            runs, width = (1, count * channels) if pixel == channels else (count, channels)
            for p in range(runs):
                round_row(x, start + p * pixel, grid, rows, row * channels + p * channels, width)
        else:
            pixels = np.empty(_TILE * _TILE, np.float32)
            for first in range(0, channels, _TILE):
                block = min(_TILE, channels - first)
                _gather(x, start + first * channel, pixel, channel, count, block, pixels)
                for p in range(count):
                    round_row(pixels, p * _TILE, grid, rows, (row + p) * channels + first, block)


@_jit
def _quantize_kernel(count, threads, *arguments):
    """Run :func:`_quantize_tiles` on all tiles."""
    fork(_quantize_tiles, count, threads, arguments)


@_jit
def _scale_rows(begin, end, sums, scale, factors, bias, y):
    """Scale integer sums and add the bias: the last step of an 8-bit layer."""
    for n in range(begin, end):
        source, target, factor = sums[n], y[n], factors[n]
        for o in range(len(scale)):
            target[o] = np.float32(source[o]) * scale[o] * factor + bias[o]


@_jit
def _scale_kernel(count, threads, *arguments):
    """Run :func:`_scale_rows` on all rows."""
    fork(_scale_rows, count, threads, arguments)


def quantize_int8(x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
    """Compute :func:`mmwcc.kernels.quantize_int8` of a float32 map of any strides."""
    batch, channels, height, width = x.shape
    rows = empty((batch, height * width, channels), torch.int8)
    memory = array_of(x, (1 + sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True)),))
    image, channel, line, pixel = x.stride()
    lines, length = (1, height * width) if line == width * pixel else (height, width)
    count = batch * lines * -(-length // _TILE)
    _quantize_kernel(
        count,
        thread_count(count),
        memory,
        (image, line, pixel, channel),
        (lines, length, channels),
        grid_of(step, low, high),
        values_of(rows),
    )
    return rows


@lru_cache
def _has_exact_product() -> bool:
    """Tell whether ``torch._int_mm`` is fast and exact here.

    Without VNNI, oneDNN adds pairs of 8-bit products in saturating 16-bit arithmetic. With
    ONEDNN_MAX_CPU_ISA=AVX2, 64 products of 127 and -128 sum to 0. On processors other than x86 it
    loops over single products.
    """
    if platform.machine() not in ('x86_64', 'AMD64') or not torch.backends.mkldnn.is_available():
        return False
    rows = torch.tensor([[127, 127], [-128, 127]], dtype=torch.int8).repeat(24, 32)
    weight = torch.tensor([[-128, -128], [127, -128]], dtype=torch.int8).repeat(24, 32)
    try:
        product = torch._int_mm(rows, weight.t())
    except (AttributeError, RuntimeError):
        return False
    return torch.equal(product, (rows.long() @ weight.t().long()).int())


def _product(rows: Tensor, weight: Tensor) -> Tensor:
    """Return ``rows @ weight.T`` in int32, computed in float32.

    The channels are cut into blocks whose sums float32 holds exactly.
    """
    sums = None
    with torch.autocast('cpu', enabled=False):
        for first in range(0, rows.shape[1], _EXACT):
            block = slice(first, first + _EXACT)
            part = (rows[:, block].float() @ weight[:, block].t().float()).int()
            sums = part if sums is None else sums.add_(part)
    assert sums is not None, 'a layer has channels'
    return sums


def int8_linear(
    rows: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    factors: Tensor | None = None,
    offset: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Compute :func:`mmwcc.kernels.int8_linear`, bit for bit as the reference, on any processor."""
    source, outputs = rows.flatten(0, -2), len(weight)
    # For a single channel, torch 2.13 returns whatever was in memory before.
    exact = rows.shape[-1] > 1 and _has_exact_product()
    if scale.dtype != torch.float32:
        sums = torch._int_mm(source, weight.t()) if exact else _product(source, weight)
        sums = sums if offset is None else sums + offset
        y = sums.unflatten(0, rows.shape[:-1]).to(scale.dtype) * scale
        y = y if factors is None else y * factors.to(scale.dtype).unsqueeze(-1)
        return (y if bias is None else y + bias).to(dtype or scale.dtype)
    factor = array_of(scale.contiguous())
    shift = np.zeros(outputs, np.float32) if bias is None else array_of(bias.float().contiguous())
    of_row = np.ones(len(source), np.float32) if factors is None else values_of(factors.float())
    y = empty((*rows.shape[:-1], outputs))
    target, step = y.view(-1, outputs), max(1, _SUMS // outputs)
    space = empty((min(step, len(source)) if exact else 0, outputs), torch.int32)
    for first in range(0, len(source), step):
        block = source[first : first + step]
        sums = (
            torch._int_mm(block, weight.t(), out=space[: len(block)])
            if exact
            else _product(block, weight)
        )
        if offset is not None:
            sums += offset
        _scale_kernel(
            len(block),
            thread_count(len(block)),
            array_of(sums),
            factor,
            of_row[first : first + step],
            shift,
            array_of(target[first : first + step]),
        )
    return y.to(dtype or y.dtype)
