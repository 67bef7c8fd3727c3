"""The Haar transform as a product with a 64x64 matrix, tile by tile: norms, pack and unpack."""

import triton
import triton.language as tl

from .tile import clamp, map_offsets, pixels, positions_of, to_int8, transform

__all__ = ['norms_kernel', 'pack_kernel', 'unpack_kernel']

# Numbers that differ from map to map: no kernel is compiled again for other ones.
_COUNTS = [
    'tiles',
    'patches_w',
    'height',
    'columns',
    'positions',
    'all_positions',
    'k',
    'stride_b',
    'stride_c',
    'stride_h',
    'stride_w',
    'slot_b',
    'residual_b',
    'residual_c',
    'residual_h',
    'residual_w',
]


@triton.jit(do_not_specialize=_COUNTS)
def norms_kernel(
    x_ptr,
    matrix_ptr,
    norms_ptr,
    top_ptr,
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
    BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Sum the squares of the coefficients over channels, always in the same order.

    Grid: (B * tiles,).
    """
    image = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    row, column = pixels(tile, patches_w, LEVELS)
    inside = (row < height) & (column < columns * GRAIN)
    j = tl.arange(0, 64)
    matrix = tl.load(matrix_ptr + j[:, None] * 64 + j[None, :])
    x_ptr += image * stride_b * ALIGN
    squares = tl.zeros((64, BLOCK), tl.float32)
    for first in range(0, C, BLOCK):
        channel = first + tl.arange(0, BLOCK)
        x = tl.load(
            x_ptr + map_offsets(row, column, channel, stride_c, stride_h, stride_w, UNIT, ALIGN),
            mask=inside[:, None] & (channel < C)[None, :],
            other=0.0,
        )
        w = transform(matrix, x, PRECISION)
        squares += w * w
        if top_ptr is not None:
            # Row 0 is the approximation of the patch. The next pass transforms it further.
            tl.store(
                top_ptr + (image * tiles + tile) * C + (j * 0)[:, None] + channel[None, :],
                w,
                mask=(j == 0)[:, None] & (channel < C)[None, :],
            )
    position = positions_of(tile, patches_w, positions, LEVELS, TOTAL, DEEPER)
    tl.store(norms_ptr + image * all_positions + position, tl.sum(squares, 1), mask=position >= 0)


@triton.jit(do_not_specialize=_COUNTS)
def pack_kernel(
    x_ptr,
    matrix_ptr,
    slot_ptr,
    rows_ptr,
    step_ptr,
    low,
    high,
    top_ptr,
    tiles,
    patches_w,
    height,
    columns,
    positions,
    k,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    slot_b,
    C: tl.constexpr,
    LEVELS: tl.constexpr,
    TOTAL: tl.constexpr,
    DEEPER: tl.constexpr,
    UNIT: tl.constexpr,
    ALIGN: tl.constexpr,
    GRAIN: tl.constexpr,
    BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Transform a tile and keep the rows that have a slot, rounded to a grid if there is a step.

    A tile of which nothing is kept reads nothing, unless a further pass needs its approximation.
    The blocks of channels of a tile run next to each other, so that pixels in channels_last are
    read whole and the slots are in the L2 cache. Grid: (B * tiles * blocks of channels,).
    """
    blocks: tl.constexpr = (C + BLOCK - 1) // BLOCK
    image = (tl.program_id(0) // (tiles * blocks)).to(tl.int64)
    tile = tl.program_id(0) // blocks % tiles
    position = positions_of(tile, patches_w, positions, LEVELS, TOTAL, DEEPER)
    slot = tl.load(slot_ptr + image * slot_b + position, mask=position >= 0, other=-1)
    if (tl.max(slot, 0) >= 0) | (top_ptr is not None):
        row, column = pixels(tile, patches_w, LEVELS)
        inside = (row < height) & (column < columns * GRAIN)
        j = tl.arange(0, 64)
        matrix = tl.load(matrix_ptr + j[:, None] * 64 + j[None, :])
        channel = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
        real = (channel < C)[None, :]
        offsets = map_offsets(row, column, channel, stride_c, stride_h, stride_w, UNIT, ALIGN)
        x = tl.load(
            x_ptr + image * stride_b * ALIGN + offsets, mask=inside[:, None] & real, other=0.0
        )
        w = transform(matrix, x, PRECISION)
        if top_ptr is not None:
            tl.store(
                top_ptr + (image * tiles + tile) * C + (j * 0)[:, None] + channel[None, :],
                w,
                mask=(j == 0)[:, None] & real,
            )
        if step_ptr is not None:
            w = to_int8(w, tl.load(step_ptr).to(tl.float32), low, high)
        tl.store(
            rows_ptr + (image * k + slot)[:, None] * C + channel[None, :],
            w.to(rows_ptr.dtype.element_ty),
            mask=(slot >= 0)[:, None] & real,
        )


@triton.jit(do_not_specialize=_COUNTS)
def unpack_kernel(
    rows_ptr,
    slot_ptr,
    matrix_ptr,
    bias_ptr,
    residual_ptr,
    low,
    high,
    top_ptr,
    y_ptr,
    tiles,
    patches_w,
    height,
    columns,
    positions,
    k,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    slot_b,
    residual_b,
    residual_c,
    residual_h,
    residual_w,
    C: tl.constexpr,
    LEVELS: tl.constexpr,
    TOTAL: tl.constexpr,
    DEEPER: tl.constexpr,
    UNIT: tl.constexpr,
    ALIGN: tl.constexpr,
    RESIDUAL_UNIT: tl.constexpr,
    RESIDUAL_ALIGN: tl.constexpr,
    GRAIN: tl.constexpr,
    BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gather the rows of a tile, invert the transform, add bias and residual, and clamp.

    ``matrix`` is the transposed one. Grid: (B * tiles * blocks of channels,), see pack_kernel.
    """
    blocks: tl.constexpr = (C + BLOCK - 1) // BLOCK
    image = (tl.program_id(0) // (tiles * blocks)).to(tl.int64)
    tile = tl.program_id(0) // blocks % tiles
    channel = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    real = (channel < C)[None, :]
    position = positions_of(tile, patches_w, positions, LEVELS, TOTAL, DEEPER)
    slot = tl.load(slot_ptr + image * slot_b + position, mask=position >= 0, other=-1)
    w = tl.load(
        rows_ptr + (image * k + slot)[:, None] * C + channel[None, :],
        mask=(slot >= 0)[:, None] & real,
        other=0.0,
    )
    j = tl.arange(0, 64)
    if top_ptr is not None:
        top = tl.load(top_ptr + (image * tiles + tile) * C + channel, mask=channel < C, other=0.0)
        w = tl.where((j == 0)[:, None], top[None, :], w.to(tl.float32))
    matrix = tl.load(matrix_ptr + j[:, None] * 64 + j[None, :])
    y = transform(matrix, w, PRECISION)
    if bias_ptr is not None:
        y += tl.load(bias_ptr + channel, mask=channel < C, other=0.0).to(tl.float32)[None, :]
    row, column = pixels(tile, patches_w, LEVELS)
    mask = ((row < height) & (column < columns * GRAIN))[:, None] & real
    if residual_ptr is not None:
        offsets = map_offsets(
            row, column, channel, residual_c, residual_h, residual_w, RESIDUAL_UNIT, RESIDUAL_ALIGN
        )
        y += tl.load(
            residual_ptr + image * residual_b * RESIDUAL_ALIGN + offsets, mask=mask, other=0.0
        ).to(tl.float32)
    y = clamp(y, low, high)
    offsets = map_offsets(row, column, channel, stride_c, stride_h, stride_w, UNIT, ALIGN)
    tl.store(y_ptr + image * stride_b * ALIGN + offsets, y.to(y_ptr.dtype.element_ty), mask=mask)
