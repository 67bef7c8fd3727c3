"""Selection of the kept rows of stored coefficients on the GPU."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import blocked, configuration, launch
from .tile import to_int8

__all__ = ['gather_rows', 'gather_rows_int8']


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

    The blocks of channels of a position run next to each other. Grid: (B * blocks of positions *
    blocks of channels,).
    """
    slices: tl.constexpr = (C + BLOCK - 1) // BLOCK
    blocks = tl.cdiv(positions, ROWS)
    image = (tl.program_id(0) // (blocks * slices)).to(tl.int64)
    position = tl.program_id(0) // slices % blocks * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(0) % slices * BLOCK + tl.arange(0, BLOCK)
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
        (batch * triton.cdiv(positions, size) * count,),
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
