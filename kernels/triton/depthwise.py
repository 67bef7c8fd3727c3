"""A depthwise convolution into Haar coefficients and their norms, tile by tile."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..layout import padded_size
from .haar import norms_into, pack_into
from .launch import blocked, configuration, launch, layout_of, precision
from .passes import geometry, matrix, tilings, top_map
from .tile import clamp, in_map, map_offsets, pixels, positions_of, transform

__all__ = ['depthwise_haar', 'tap']

# Numbers that differ from map to map: no kernel is compiled again for other ones.
_COUNTS = [
    'taps',
    'tiles',
    'patches_w',
    'height',
    'columns',
    'positions',
    'all_positions',
    'stride_b',
    'stride_c',
    'stride_h',
    'stride_w',
]


@triton.jit
def tap(x_ptrs, weight_ptrs, inside, real):
    """Return the product of one tap with the pixels under it, [64, channels].

    ``x_ptrs`` point to the pixels and ``weight_ptrs`` to the channels of the tap. The product is
    zero where pixels are not ``inside`` the map, and where channels are not ``real``.
    """
    x = tl.load(x_ptrs, mask=inside[:, None] & real[None, :], other=0.0).to(tl.float32)
    return x * tl.load(weight_ptrs, mask=real, other=0.0).to(tl.float32)[None, :]


@triton.jit(do_not_specialize=_COUNTS)
def _depthwise_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    low,
    high,
    matrix_ptr,
    coefficients_ptr,
    norms_ptr,
    top_ptr,
    taps,
    tiles,
    patches_w,
    height,
    columns,
    positions,
    all_positions,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    C: tl.constexpr,
    LEVELS: tl.constexpr,
    TOTAL: tl.constexpr,
    DEEPER: tl.constexpr,
    UNIT: tl.constexpr,
    ALIGN: tl.constexpr,
    GRAIN: tl.constexpr,
    TAPS: tl.constexpr,
    DILATION: tl.constexpr,
    BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Filter, clamp, transform and store a tile.

    The squares are summed over channels in a fixed order. Grid: (B * tiles,).
    """
    image = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    row, column = pixels(tile, patches_w, LEVELS)
    width = columns * GRAIN
    inside = (row < height) & (column < width)
    j = tl.arange(0, 64)
    matrix = tl.load(matrix_ptr + j[:, None] * 64 + j[None, :])
    position = positions_of(tile, patches_w, positions, LEVELS, TOTAL, DEEPER)
    x_ptr += image * stride_b * ALIGN
    coefficients_ptr += image * all_positions * C
    squares = tl.zeros((64, BLOCK), tl.float32)
    for first in range(0, C, BLOCK):
        channel = first + tl.arange(0, BLOCK)
        real = channel < C
        y = tl.zeros((64, BLOCK), tl.float32)
        if bias_ptr is not None:
            y += tl.load(bias_ptr + channel, mask=real, other=0.0).to(tl.float32)[None, :]
        # With 5 lines of taps or more, their number is a run-time argument. If the compiler knew
        # it, it would unroll the loop and run out of registers.
        for vertical in range(TAPS if TAPS <= 3 else taps):
            above = row + (vertical - TAPS // 2) * DILATION
            for horizontal in tl.static_range(TAPS):
                across = column + (horizontal - TAPS // 2) * DILATION
                offsets = map_offsets(
                    above, across, channel, stride_c, stride_h, stride_w, UNIT, ALIGN
                )
                weights = weight_ptr + (vertical * TAPS + horizontal) * C + channel
                y += tap(x_ptr + offsets, weights, in_map(above, across, height, width), real)
        y = tl.where(inside[:, None] & real[None, :], clamp(y, low, high), 0.0)
        w = transform(matrix, y, PRECISION)
        squares += w * w
        if top_ptr is not None:
            tl.store(
                top_ptr + (image * tiles + tile) * C + (j * 0)[:, None] + channel[None, :],
                w,
                mask=(j == 0)[:, None] & real[None, :],
            )
        tl.store(
            coefficients_ptr + position.to(tl.int64)[:, None] * C + channel[None, :],
            w.to(coefficients_ptr.dtype.element_ty),
            mask=(position >= 0)[:, None] & real[None, :],
        )
    tl.store(norms_ptr + image * all_positions + position, tl.sum(squares, 1), mask=position >= 0)


def depthwise_haar(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dilation: int,
    levels: int,
    low: float | None,
    high: float | None,
) -> tuple[Tensor, Tensor]:
    """Compute :func:`mmwcc.kernels.depthwise_haar`."""
    batch, channels = x.shape[:2]
    height, width = padded_size(x.shape[2], levels), padded_size(x.shape[3], levels)
    coefficients = x.new_empty(batch, height * width, channels)
    norms = x.new_empty(batch, height * width, dtype=torch.float32)
    first, *deeper = tilings(height, width, levels)
    kernel = weight.detach().flatten(1).t().contiguous()
    table_dtype = torch.float32 if x.dtype == torch.float32 else torch.bfloat16
    top = top_map(x, first) if deeper else None
    layout, config = layout_of(x), configuration('depthwise_haar', x)
    sizes, options = geometry(x, layout, first)
    _, blocks = blocked(config, channels)
    launch(
        _depthwise_kernel,
        (batch * first.tiles,),
        x,
        x,
        kernel,
        None if bias is None else bias.contiguous(),
        low,
        high,
        matrix(first.levels, False, table_dtype, x.device),
        coefficients,
        norms,
        top,
        weight.shape[-1],
        *sizes,
        height * width,
        *layout.strides,
        **options,
        **first.order,
        TAPS=weight.shape[-1],
        DILATION=dilation,
        **blocks,
        PRECISION=precision(x.device, x.dtype),
    )
    if top is not None:
        everything = torch.arange(height * width, dtype=torch.int32, device=x.device)
        slot = everything.expand(batch, -1)
        pack_into(coefficients, top, slot, tuple(deeper), (None, None, None))
        norms_into(norms, top, tuple(deeper))
    return coefficients, norms
