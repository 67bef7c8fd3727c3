"""The Haar operators on the GPU, in as many passes as the depth of the transform needs."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layout import padded_size
from ..transform import empty_map
from .haar_kernels import norms_kernel, pack_kernel, unpack_kernel
from .launch import blocked, configuration, launch, layout_of, precision
from .passes import Tiling, geometry, matrix, tilings, top_map
from .select import select

__all__ = [
    'haar_norms',
    'haar_pack',
    'haar_pack_int8',
    'haar_shrink',
    'haar_shrink_int8',
    'haar_unpack',
    'norms_into',
    'pack_into',
]


def _padded(x: Tensor, levels: int) -> tuple[int, int]:
    """Return the padded height and width of a map."""
    return padded_size(x.shape[2], levels), padded_size(x.shape[3], levels)


def _lines(slot: Tensor) -> Tensor:
    """Return ``slot`` with neighbouring positions side by side; images may share their memory."""
    return slot if slot.stride(1) == 1 else slot.contiguous()


def norms_into(norms: Tensor, x: Tensor, passes: tuple[Tiling, ...]) -> None:
    """Write the norms of ``x``. Each pass but the last leaves a smaller map to the next."""
    total = norms.shape[1]
    for n, tiling in enumerate(passes):
        layout, config = layout_of(x), configuration('haar_norms', x)
        top = top_map(x, tiling) if n + 1 < len(passes) else None
        sizes, options = geometry(x, layout, tiling)
        _, blocks = blocked(config, x.shape[1])
        launch(
            norms_kernel,
            (x.shape[0] * tiling.tiles,),
            x,
            x,
            matrix(tiling.levels, False, x.dtype, x.device),
            norms,
            top,
            *sizes,
            total,
            *layout.strides,
            **options,
            **tiling.order,
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
            pack_kernel,
            (x.shape[0] * tiling.tiles * count,),
            x,
            x,
            matrix(tiling.levels, False, x.dtype, x.device),
            slot,
            rows,
            *grid,
            top,
            *sizes,
            rows.shape[1],
            *layout.strides,
            slot.stride(0),
            **options,
            **tiling.order,
            **blocks,
            PRECISION=precision(x.device),
        )
        if top is not None:
            x = top


def haar_norms(x: Tensor, levels: int) -> Tensor:
    """Compute :func:`mmwcc.kernels.haar_norms`."""
    height, width = _padded(x, levels)
    norms = torch.empty(x.shape[0], height * width, dtype=torch.float32, device=x.device)
    norms_into(norms, x, tilings(height, width, levels))
    return norms


def haar_pack(x: Tensor, slot: Tensor, k: int, levels: int) -> Tensor:
    """Compute :func:`mmwcc.kernels.haar_pack`."""
    rows = x.new_empty(x.shape[0], k, x.shape[1])
    pack_into(
        rows,
        x,
        _lines(slot),
        tilings(*_padded(x, levels), levels),
        (None, None, None),
    )
    return rows


def haar_pack_int8(
    x: Tensor, slot: Tensor, k: int, levels: int, step: Tensor, low: int, high: int
) -> Tensor:
    """Compute :func:`mmwcc.kernels.haar_pack_int8`."""
    rows = x.new_empty(x.shape[0], k, x.shape[1], dtype=torch.int8)
    grid = (step, float(low), float(high))
    pack_into(rows, x, _lines(slot), tilings(*_padded(x, levels), levels), grid)
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
    y = empty_map(rows, height, width, channels_last)
    rows, slot, top = rows.contiguous(), _lines(slot), None
    passes = tilings(*_padded(y, levels), levels)
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
        unpack_kernel,
        (y.shape[0] * tiling.tiles * count,),
        y,
        rows,
        slot,
        matrix(tiling.levels, True, dtype, y.device),
        bias,
        residual,
        low,
        high,
        top,
        y,
        *sizes,
        rows.shape[1],
        *layout.strides,
        slot.stride(0),
        *other.strides,
        **options,
        **tiling.order,
        RESIDUAL_UNIT=other.unit,
        RESIDUAL_ALIGN=other.align,
        **blocks,
        PRECISION=precision(y.device),
    )
