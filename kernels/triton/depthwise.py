"""A depthwise convolution into Haar coefficients and their norms, tile by tile, and row selection."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..layout import padded_size
from .haar import blocked, geometry, matrix, norms_into, pack_into, tilings, top_map
from .launch import configuration, launch, layout_of, precision
from .tile import clamp, map_offsets, pixels, positions_of, to_int8, transform

__all__ = ['depthwise_haar', 'gather_rows', 'gather_rows_int8']

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
def _tap(
    x_ptr,
    weight_ptr,
    row,
    column,
    channel,
    tap,
    height,
    width,
    stride_c,
    stride_h,
    stride_w,
    C: tl.constexpr,
    UNIT: tl.constexpr,
    ALIGN: tl.constexpr,
):
    """Return the product of one tap with the pixels under it, [64, channels].

    Outside the map it is zero.
    """
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    real = channel < C
    x = tl.load(
        x_ptr + map_offsets(row, column, channel, stride_c, stride_h, stride_w, UNIT, ALIGN),
        mask=inside[:, None] & real[None, :],
        other=0.0,
    ).to(tl.float32)
    return x * tl.load(weight_ptr + tap * C + channel, mask=real, other=0.0).to(tl.float32)[None, :]


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
    order_ptr,
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
    position = positions_of(tile, positions, order_ptr)
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
                y += _tap(
                    x_ptr,
                    weight_ptr,
                    above,
                    column + (horizontal - TAPS // 2) * DILATION,
                    channel,
                    vertical * TAPS + horizontal,
                    height,
                    width,
                    stride_c,
                    stride_h,
                    stride_w,
                    C,
                    UNIT,
                    ALIGN,
                )
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


@triton.jit(do_not_specialize=['positions', 'k'])
def _gather_kernel(
    coefficients_ptr,
    slot_ptr,
    rows_ptr,
    step_ptr,
    low,
    high,
    positions,
    k,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Copy the kept rows of a block of positions, rounded to a grid if there is a step.

    Grid: (B * blocks, channels).
    """
    blocks = tl.cdiv(positions, ROWS)
    image = (tl.program_id(0) // blocks).to(tl.int64)
    position = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    slot = tl.load(slot_ptr + image * positions + position, mask=position < positions, other=-1)
    mask = (slot >= 0)[:, None] & (channel < C)[None, :]
    rows = tl.load(
        coefficients_ptr + (image * positions + position)[:, None] * C + channel[None, :],
        mask=mask,
        other=0.0,
    )
    if step_ptr is not None:
        rows = to_int8(rows.to(tl.float32), tl.load(step_ptr).to(tl.float32), low, high)
    tl.store(rows_ptr + (image * k + slot)[:, None] * C + channel[None, :], rows, mask=mask)


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
    first, *deeper = tilings(height, width, levels, x.device)
    kernel, bias = (
        weight.detach().flatten(1).t().contiguous(),
        None if bias is None else bias.contiguous(),
    )
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
        bias,
        low,
        high,
        matrix(
            first.levels,
            False,
            torch.float32 if x.dtype == torch.float32 else torch.bfloat16,
            x.device,
        ),
        coefficients,
        norms,
        top,
        first.order,
        weight.shape[-1],
        *sizes,
        height * width,
        *layout.strides,
        **options,
        TAPS=weight.shape[-1],
        DILATION=dilation,
        **blocks,
        PRECISION=precision(x.device, x.dtype),
    )
    if top is not None:
        everything = torch.arange(height * width, dtype=torch.int32, device=x.device).expand(
            batch, -1
        )
        pack_into(coefficients, top, everything, tuple(deeper), (None, None, None))
        norms_into(norms, top, tuple(deeper))
    return coefficients, norms


def _gather(rows: Tensor, coefficients: Tensor, slot: Tensor, grid: tuple) -> Tensor:
    """Fill ``rows`` with the kept coefficients.

    ``grid`` is step, low and high, which are all None where nothing is rounded.
    """
    batch, positions, channels = coefficients.shape
    config = configuration('gather_rows', coefficients)
    size = config.pop('rows')
    count, options = blocked(config, channels)
    launch(
        _gather_kernel,
        (batch * triton.cdiv(positions, size), count),
        coefficients,
        coefficients.contiguous(),
        slot.contiguous(),
        rows,
        *grid,
        positions,
        rows.shape[1],
        C=channels,
        ROWS=size,
        **options,
    )
    return rows


def gather_rows(coefficients: Tensor, slot: Tensor, k: int) -> Tensor:
    """Compute :func:`mmwcc.kernels.gather_rows`."""
    rows = coefficients.new_empty(coefficients.shape[0], k, coefficients.shape[2])
    return _gather(rows, coefficients, slot, (None, None, None))


def gather_rows_int8(
    coefficients: Tensor, slot: Tensor, k: int, step: Tensor, low: int, high: int
) -> Tensor:
    """Compute :func:`mmwcc.kernels.gather_rows_int8`."""
    rows = coefficients.new_empty(coefficients.shape[0], k, coefficients.shape[2], dtype=torch.int8)
    return _gather(rows, coefficients, slot, (step, float(low), float(high)))
