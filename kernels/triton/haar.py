"""The Haar transform as a product with a 64x64 matrix, tile by tile: norms, pack and unpack.

Transforms of more than three levels take several passes. The first three levels leave the
approximation of each 8x8 patch as a small map in float32, which the next pass transforms further.
Tables tell each pass which positions are its own.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..haar import _analysis, _empty_map
from ..layout import fold, padded_size, unfold
from .launch import MapLayout, configuration, launch, layout_of, precision
from .select import select
from .tile import UNIT_COLUMN, clamp, map_offsets, pixels, positions_of, to_int8, transform

__all__ = [
    'Tiling',
    'blocked',
    'geometry',
    'haar_norms',
    'haar_pack',
    'haar_pack_int8',
    'haar_shrink',
    'haar_shrink_int8',
    'haar_unpack',
    'matrix',
    'norms_into',
    'pack_into',
    'tilings',
    'top_map',
]

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
def _norms_kernel(
    x_ptr,
    matrix_ptr,
    norms_ptr,
    top_ptr,
    order_ptr,
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
    position = positions_of(tile, positions, order_ptr)
    tl.store(norms_ptr + image * all_positions + position, tl.sum(squares, 1), mask=position >= 0)


@triton.jit(do_not_specialize=_COUNTS)
def _pack_kernel(
    x_ptr,
    matrix_ptr,
    slot_ptr,
    rows_ptr,
    step_ptr,
    low,
    high,
    top_ptr,
    order_ptr,
    tiles,
    patches_w,
    height,
    columns,
    positions,
    all_positions,
    k,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    slot_b,
    C: tl.constexpr,
    LEVELS: tl.constexpr,
    UNIT: tl.constexpr,
    ALIGN: tl.constexpr,
    GRAIN: tl.constexpr,
    BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Transform a tile and keep the rows that have a slot, rounded to a grid if there is a step.

    A tile of which nothing is kept reads nothing, unless a further pass needs its approximation.
    Grid: (B * tiles, channels / BLOCK).
    """
    image = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    position = positions_of(tile, positions, order_ptr)
    slot = tl.load(slot_ptr + image * slot_b + position, mask=position >= 0, other=-1)
    if (tl.max(slot, 0) >= 0) | (top_ptr is not None):
        row, column = pixels(tile, patches_w, LEVELS)
        inside = (row < height) & (column < columns * GRAIN)
        j = tl.arange(0, 64)
        matrix = tl.load(matrix_ptr + j[:, None] * 64 + j[None, :])
        channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
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
def _unpack_kernel(
    rows_ptr,
    slot_ptr,
    matrix_ptr,
    bias_ptr,
    residual_ptr,
    low,
    high,
    top_ptr,
    order_ptr,
    y_ptr,
    tiles,
    patches_w,
    height,
    columns,
    positions,
    all_positions,
    k,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    residual_b,
    residual_c,
    residual_h,
    residual_w,
    C: tl.constexpr,
    LEVELS: tl.constexpr,
    UNIT: tl.constexpr,
    ALIGN: tl.constexpr,
    RESIDUAL_UNIT: tl.constexpr,
    RESIDUAL_ALIGN: tl.constexpr,
    GRAIN: tl.constexpr,
    BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gather the rows of a tile, invert the transform, add bias and residual, and clamp.

    ``matrix`` is the transposed one. Grid: (B * tiles, channels / BLOCK).
    """
    image = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    real = (channel < C)[None, :]
    position = positions_of(tile, positions, order_ptr)
    slot = tl.load(slot_ptr + image * all_positions + position, mask=position >= 0, other=-1)
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


class Tiling:
    """One pass over a map: its levels (at most three), its tiles, and which positions are its own.

    Attributes:
        levels: Levels of this pass.
        tiles: Number of tiles of an image.
        patches_w: Number of patches in a row.
        positions: Number of positions of an image in this pass.
        order: Position of each of them in the whole transform, int32, or -1 where it belongs to the
            next pass. None if the positions are the same.
    """

    def __init__(self, height: int, width: int, levels: int, order: Tensor | None) -> None:
        self.levels, self.order = levels, order
        self.patches_w = width >> levels
        self.positions = height * width
        self.tiles = triton.cdiv(self.positions, 64)


@lru_cache(maxsize=64)
def tilings(height: int, width: int, levels: int, device: torch.device) -> tuple[Tiling, ...]:
    """Return the passes over a map of a padded size.

    Up to three levels need one pass. Deeper transforms need one for every three levels, rounded up.
    """
    if levels <= 3:
        return (Tiling(height, width, levels, None),)
    orders, rest = [], torch.arange(height * width)
    while levels > 3:
        mine, rest = _split_order(rest, height, width, levels)
        orders.append(Tiling(height, width, 3, mine.int().to(device)))
        height, width, levels = height // 8, width // 8, levels - 3
    return *orders, Tiling(height, width, levels, rest.int().to(device))


def _split_order(order: Tensor, height: int, width: int, levels: int) -> tuple[Tensor, Tensor]:
    """Split the positions of a transform into those of its first three levels and the others.

    The first part is in the order of a transform of three levels, with -1 for its approximations,
    which the others replace. The second part is in the order of the transform of those
    approximations.
    """
    total = height * width
    top, details = unfold(torch.arange(total).reshape(1, -1, 1), height, width, 3)
    deeper = unfold(
        torch.arange(total, total + top.numel()).reshape(1, -1, 1),
        height // 8,
        width // 8,
        levels - 3,
    )
    source = fold(deeper[0], deeper[1] + details).flatten()
    mine, rest = torch.full((total,), -1), torch.empty(top.numel(), dtype=torch.int64)
    first = source < total
    mine[source[first]], rest[source[~first] - total] = order[first], order[~first]
    return mine, rest


@lru_cache(maxsize=64)
def matrix(levels: int, transposed: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the transform of a tile (coefficients by pixels), or its transpose, shape (64, 64).

    Where a tile has several patches, this is the transform of one patch, repeated along the
    diagonal.
    """
    area = 1 << 2 * levels
    pixel = torch.eye(area).reshape(area, 1, 1 << levels, 1 << levels)
    patch = _analysis(pixel, levels)[..., 0].t()
    tile = torch.block_diag(*[patch] * (64 // area))
    return (tile.t() if transposed else tile).contiguous().to(device, dtype)


def geometry(x: Tensor, layout: MapLayout, tiling: Tiling) -> tuple[tuple, dict]:
    """Return what every kernel over a map takes: sizes as arguments and layout as options.

    Where columns are contiguous, the width comes divided by ``GRAIN``. The kernels multiply it
    again, so that the compiler knows it to be a multiple of ``GRAIN``.
    """
    height, width = x.shape[2:]
    grain = next(g for g in (8, 4, 2, 1) if width % g == 0) if layout.unit == UNIT_COLUMN else 1
    sizes = (tiling.tiles, tiling.patches_w, height, width // grain, tiling.positions)
    return sizes, dict(
        C=x.shape[1], LEVELS=tiling.levels, UNIT=layout.unit, ALIGN=layout.align, GRAIN=grain
    )


def blocked(config: dict[str, int], channels: int) -> tuple[int, dict[str, int]]:
    """Return the number of channel blocks, and the launch options with no block wider than needed."""
    block = max(16, min(config.pop('block'), triton.next_power_of_2(channels)))
    return triton.cdiv(channels, block), dict(BLOCK=block, **config)


def _padded(x: Tensor, levels: int) -> tuple[int, int]:
    """Return the padded height and width of a map."""
    return padded_size(x.shape[2], levels), padded_size(x.shape[3], levels)


def top_map(x: Tensor, tiling: Tiling) -> Tensor:
    """Allocate the approximation that a pass leaves, as a channels_last map in float32."""
    return torch.empty(
        x.shape[0],
        tiling.tiles // tiling.patches_w,
        tiling.patches_w,
        x.shape[1],
        device=x.device,
        dtype=torch.float32,
    ).permute(0, 3, 1, 2)


def norms_into(norms: Tensor, x: Tensor, passes: tuple[Tiling, ...]) -> None:
    """Write the norms of ``x``. Each pass but the last leaves a smaller map to the next."""
    total = norms.shape[1]
    for n, tiling in enumerate(passes):
        layout, config = layout_of(x), configuration('haar_norms', x)
        top = top_map(x, tiling) if n + 1 < len(passes) else None
        sizes, options = geometry(x, layout, tiling)
        _, blocks = blocked(config, x.shape[1])
        launch(
            _norms_kernel,
            (x.shape[0] * tiling.tiles,),
            x,
            x,
            matrix(tiling.levels, False, x.dtype, x.device),
            norms,
            top,
            tiling.order,
            *sizes,
            total,
            *layout.strides,
            **options,
            **blocks,
            PRECISION=precision(x.device),
        )
        if top is not None:
            x = top


def pack_into(
    rows: Tensor, x: Tensor, slot: Tensor, passes: tuple[Tiling, ...], grid: tuple
) -> None:
    """Write the rows of ``x`` that ``slot``, shape (B, N), numbers.

    ``grid`` is step, low and high of int8 rows, which are all None where nothing is rounded.
    """
    for n, tiling in enumerate(passes):
        layout, config = layout_of(x), configuration('haar_pack', x)
        top = top_map(x, tiling) if n + 1 < len(passes) else None
        sizes, options = geometry(x, layout, tiling)
        count, blocks = blocked(config, x.shape[1])
        launch(
            _pack_kernel,
            (x.shape[0] * tiling.tiles, count),
            x,
            x,
            matrix(tiling.levels, False, x.dtype, x.device),
            slot,
            rows,
            *grid,
            top,
            tiling.order,
            *sizes,
            slot.shape[1],
            rows.shape[1],
            *layout.strides,
            slot.stride(0),
            **options,
            **blocks,
            PRECISION=precision(x.device),
        )
        if top is not None:
            x = top


def haar_norms(x: Tensor, levels: int) -> Tensor:
    """Compute :func:`mmwcc.kernels.haar_norms`."""
    height, width = _padded(x, levels)
    norms = torch.empty(x.shape[0], height * width, dtype=torch.float32, device=x.device)
    norms_into(norms, x, tilings(height, width, levels, x.device))
    return norms


def haar_pack(x: Tensor, slot: Tensor, k: int, levels: int) -> Tensor:
    """Compute :func:`mmwcc.kernels.haar_pack`."""
    rows = x.new_empty(x.shape[0], k, x.shape[1])
    pack_into(
        rows,
        x,
        slot.contiguous(),
        tilings(*_padded(x, levels), levels, x.device),
        (None, None, None),
    )
    return rows


def haar_pack_int8(
    x: Tensor, slot: Tensor, k: int, levels: int, step: Tensor, low: int, high: int
) -> Tensor:
    """Compute :func:`mmwcc.kernels.haar_pack_int8`."""
    rows = x.new_empty(x.shape[0], k, x.shape[1], dtype=torch.int8)
    grid = (step, float(low), float(high))
    pack_into(rows, x, slot.contiguous(), tilings(*_padded(x, levels), levels, x.device), grid)
    return rows


def haar_shrink(x: Tensor, k: int, levels: int) -> tuple[Tensor, Tensor]:
    """Compute :func:`mmwcc.kernels.haar_shrink`."""
    slot = select(haar_norms(x, levels), k)
    return haar_pack(x, slot, k, levels), slot


def haar_shrink_int8(
    x: Tensor, k: int, levels: int, step: Tensor, low: int, high: int
) -> tuple[Tensor, Tensor]:
    """Compute :func:`mmwcc.kernels.haar_shrink_int8`."""
    slot = select(haar_norms(x, levels), k)
    return haar_pack_int8(x, slot, k, levels, step, low, high), slot


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
    """Compute :func:`mmwcc.kernels.haar_unpack`."""
    y = _empty_map(rows, height, width, channels_last)
    rows, slot, top = rows.contiguous(), slot.contiguous(), None
    passes = tilings(*_padded(y, levels), levels, y.device)
    # The deepest pass comes first. Bias, residual and bounds belong to the last one only.
    for n in range(len(passes) - 1, 0, -1):
        below = top_map(y, passes[n - 1])
        _unpack(below, rows, slot, top, passes[n], (None, None, None, None))
        top = below
    bias = None if bias is None else bias.contiguous()
    _unpack(y, rows, slot, top, passes[0], (bias, residual, low, high))
    return y


def _unpack(
    y: Tensor, rows: Tensor, slot: Tensor, top: Tensor | None, tiling: Tiling, finish: tuple
) -> None:
    """Run one pass of the inverse transform.

    ``top`` is the map that the deeper pass has left, or None. ``finish`` is bias, residual and
    bounds.
    """
    bias, residual, low, high = finish
    layout = layout_of(y)
    other = layout if residual is None else layout_of(residual)
    sizes, options = geometry(y, layout, tiling)
    count, blocks = blocked(configuration('haar_unpack', rows), y.shape[1])
    dtype = rows.dtype if top is None else torch.float32
    launch(
        _unpack_kernel,
        (y.shape[0] * tiling.tiles, count),
        y,
        rows,
        slot,
        matrix(tiling.levels, True, dtype, y.device),
        bias,
        residual,
        low,
        high,
        top,
        tiling.order,
        y,
        *sizes,
        slot.shape[1],
        rows.shape[1],
        *layout.strides,
        *other.strides,
        **options,
        RESIDUAL_UNIT=other.unit,
        RESIDUAL_ALIGN=other.align,
        **blocks,
        PRECISION=precision(y.device),
    )
