"""Quantization of rows by their energy: one pass for the energies, and one to round."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..energy import Grids, grids
from .launch import configuration, launch
from .tile import clamp, divide, round_even

__all__ = ['energy_quant', 'energy_quant_backward']


@triton.jit
def _values_of(x_ptr, row, channel, count, C: tl.constexpr):
    """Load a tile of rows in float32, zero where there are none, [rows, channels]."""
    mask = (row < count)[:, None] & (channel < C)[None, :]
    return tl.load(x_ptr + row[:, None] * C + channel[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _grid_of(grid_ptr, row, count):
    """Load step, lowest and highest level of rows, [rows, 1] each; the step is 1 past the end."""
    there = row < count
    step = tl.load(grid_ptr + row, mask=there, other=1.0)
    low = tl.load(grid_ptr + count + row, mask=there, other=0.0)
    high = tl.load(grid_ptr + 2 * count + row, mask=there, other=0.0)
    return step[:, None], low[:, None], high[:, None]


@triton.jit(do_not_specialize=['count'])
def _measure_kernel(
    x_ptr, energy_ptr, count, C: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """Write the mean square of each row, summed in a fixed order. Grid: (count / ROWS,)."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    squares = tl.zeros((ROWS, BLOCK), tl.float32)
    for first in range(0, C, BLOCK):
        x = _values_of(x_ptr, row, first + tl.arange(0, BLOCK), count, C)
        squares += x * x
    tl.store(energy_ptr + row, tl.sum(squares, 1) / C, mask=row < count)


@triton.jit(do_not_specialize=['count'])
def _round_rows_kernel(
    x_ptr, grid_ptr, y_ptr, count, C: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """Round a tile of rows to their grids.

    The blocks of channels of a row run next to each other. Grid: (blocks of rows * blocks of
    channels,).
    """
    slices: tl.constexpr = (C + BLOCK - 1) // BLOCK
    row = (tl.program_id(0) // slices).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(0) % slices * BLOCK + tl.arange(0, BLOCK)
    step, low, high = _grid_of(grid_ptr, row, count)
    x = _values_of(x_ptr, row, channel, count, C)
    y = round_even(clamp(divide(x, step), low, high)) * step
    mask = (row < count)[:, None] & (channel < C)[None, :]
    tl.store(y_ptr + row[:, None] * C + channel[None, :], y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=['count'])
def _differentiate_kernel(
    grad_ptr,
    x_ptr,
    grid_ptr,
    grad_x_ptr,
    sums_ptr,
    count,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Cut gradients off outside the clips, and sum what each row adds to that of its clip.

    Rows of width 0 have none. Grid: (count / ROWS,).
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    step, low, high = _grid_of(grid_ptr, row, count)
    sums = tl.zeros((ROWS, BLOCK), tl.float32)
    for first in range(0, C, BLOCK):
        channel = first + tl.arange(0, BLOCK)
        grad = _values_of(grad_ptr, row, channel, count, C)
        scaled = divide(_values_of(x_ptr, row, channel, count, C), step)
        clipped = clamp(scaled, low, high)
        inside = (clipped == scaled) & (high > low)
        mask = (row < count)[:, None] & (channel < C)[None, :]
        cut = tl.where(inside, grad, 0.0).to(grad_x_ptr.dtype.element_ty)
        tl.store(grad_x_ptr + row[:, None] * C + channel[None, :], cut, mask=mask)
        sums += grad * tl.where(inside, round_even(clipped) - scaled, clipped)
    tl.store(sums_ptr + row, tl.sum(sums, 1), mask=row < count)


def _tiles(kernel: str, rows: Tensor) -> tuple[int, int, dict[str, int]]:
    """Return the numbers of tiles of rows and of channels, and the launch options."""
    config, channels = configuration(kernel, rows), rows.shape[2]
    block = max(16, min(config['block'], triton.next_power_of_2(channels)))
    size = max(1, config['values'] // block)
    options = dict(C=channels, ROWS=size, BLOCK=block, num_warps=config['num_warps'])
    count = rows.shape[0] * rows.shape[1]
    return triton.cdiv(count, size), triton.cdiv(channels, block), options


def _grids(rows: Tensor, *arguments) -> tuple[Grids, Tensor]:
    """Return the grids of contiguous rows; and step, low and high of all rows in one tensor."""
    energy = torch.empty(rows.shape[:2], dtype=torch.float32, device=rows.device)
    tiles, _, options = _tiles('energy_quant_backward', rows)
    launch(_measure_kernel, (tiles,), rows, rows, energy, energy.numel(), **options)
    grid = grids(energy, *arguments)
    return grid, torch.cat([part.flatten() for part in (grid.step, grid.low, grid.high)])


def energy_quant(rows, clips, signed, total, widths, symmetric):
    """Compute :func:`mmwcc.kernels.energy_quant`."""
    rows = rows.contiguous()
    _, grid = _grids(rows, clips, signed, total, widths, symmetric)
    y, (tiles, blocks, options) = torch.empty_like(rows), _tiles('energy_quant', rows)
    launch(
        _round_rows_kernel,
        (tiles * blocks,),
        rows,
        rows,
        grid,
        y,
        rows.shape[0] * rows.shape[1],
        **options,
    )
    return y


def energy_quant_backward(grad, rows, clips, signed, total, widths, symmetric):
    """Compute :func:`mmwcc.kernels.energy_quant_backward`."""
    rows, grad = rows.contiguous(), grad.contiguous()
    grid, levels = _grids(rows, clips, signed, total, widths, symmetric)
    cut, sums = torch.empty_like(rows), torch.empty_like(grid.step)
    tiles, _, options = _tiles('energy_quant_backward', rows)
    launch(
        _differentiate_kernel,
        (tiles,),
        rows,
        grad,
        rows,
        levels,
        cut,
        sums,
        rows.shape[0] * rows.shape[1],
        **options,
    )
    return cut, grid.gradient_of_clips(sums, clips)
