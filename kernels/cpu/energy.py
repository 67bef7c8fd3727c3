"""Quantization of rows by their energy in numba: energies, widths and rounding in one operator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..energy import Grids, gains, grids, stored_lower
from .addresses import address_at
from .fake_quant import _clamped
from .jit import jit
from .memory import address_of, array_of, empty, empty_like, values_of
from .rows import round_row, square_row
from .select import _key
from .simd import LANES, clamp, first_lanes, load, rounded, splat, store
from .threads import fork, thread_count

__all__ = ['energy_int8', 'energy_quant', 'energy_quant_backward', 'row_bits']

_EXPONENT = 23  # bits of a float32 below its exponent
_SHIFTS, _DIGITS = (20, 10, 0), (11, 10, 10)  # of a key of 31 bits, from the top
_index = np.uintp  # unsigned: numba checks signed indices for negative values
_jit = jit(fastmath={'reassoc', 'contract'})
_exact = jit(error_model='numpy', forceinline=True)


@_jit
def _scan(counts, budget):
    """Return the largest digit whose steps no longer fit into the budget, and what is left.

    ``counts`` are the bits that the steps of each digit cost. The digit is -1 if all steps fit.
    """
    digit = len(counts) - 1
    while digit >= 0 and counts[digit] <= budget:
        budget -= counts[digit]
        digit -= 1
    return digit, budget


@_jit
def _threshold(keys, costs, shifts, budget):
    """Return the key of the first step that no longer fits into the budget, and what is left.

    A step is a number of bits more for a row. Its key is that of the row minus the exponent of the
    step. The digits of the threshold are found from the top, as in a radix sort: each pass counts
    the steps that share the digits that are known already.
    """
    known, above = np.int32(0), np.int32(31)
    for part in range(3):
        shift, size = _SHIFTS[part], 1 << _DIGITS[part]
        counts = np.zeros(size, np.int64)
        for key in keys:
            for step in range(len(costs)):
                level = _key(key) - shifts[step]
                if level >= 0 and level >> above == known >> above:
                    counts[(level >> shift) & (size - 1)] += costs[step]
        digit, budget = _scan(counts, budget)
        if digit < 0:  # all steps fit, which the first pass finds
            return np.int32(-1), budget
        known, above = known | np.int32(digit << shift), np.int32(shift)
    return known, budget


@_jit
def _allocate(begin, end, keys, grid, total, bits):
    """Divide the bits of each image among its rows.

    Args:
        begin: First image.
        end: One past the last image.
        keys: The bits of the energies, shape (B, k), int32.
        grid: The smallest width, and of each step to the next the cost and the exponent in place.
        total: Bits of an image.
        bits: Where the widths go, shape (B, k), uint8.
    """
    lowest, costs, shifts = grid
    for image in range(begin, end):
        row, given = keys[image], bits[image]
        threshold, left = _threshold(row, costs, shifts, total - lowest * len(row))
        largest, some = 0, lowest > 0
        for n in range(len(row)):
            key, width = _key(row[n]), lowest
            for step in range(len(costs)):
                level = key - shifts[step]
                if level > threshold:
                    width += costs[step]
                elif level == threshold and level >= 0:
                    if left >= costs[step]:
                        width += costs[step]
                    left -= costs[step]
            given[n] = width
            some |= width > 0
            if key > _key(row[largest]):
                largest = n
        if not some and _key(row[largest]) > 0:
            given[largest] = costs[0]


@_jit
def _allocate_kernel(count, threads, *arguments):
    """Run :func:`_allocate` on all images."""
    fork(_allocate, count, threads, arguments)


@_jit
def _measure(begin, end, rows, channels, energy):
    """Write the mean square of each row. ``rows`` is the address of the first one."""
    for n in range(begin, end):
        square = square_row(address_at(rows, np.uintp(n * channels)), channels)
        energy[n] = square / np.float32(channels)


@_jit
def _measure_kernel(count, threads, *arguments):
    """Run :func:`_measure` on all rows."""
    fork(_measure, count, threads, arguments)


@_exact
def _round_row(source, target, count, step, low, high):
    """Round a row of ``count`` values, given by its address, and write it to another."""
    count, step = _index(count), splat(step)
    low, high = splat(low), splat(high)
    whole = count - count % _index(LANES)
    for n in range(_index(0), whole, _index(LANES)):
        level = rounded(clamp(load(source, n, None) / step, low, high))
        store(target, n, level * step, None)
    if whole < count:
        mask = first_lanes(count - whole)
        level = rounded(clamp(load(source, whole, mask) / step, low, high))
        store(target, whole, level * step, mask)


@_jit
def _round(begin, end, x, channels, steps, lows, highs, y):
    """Round rows, given by the address of the first. Those of width 0 have levels 0 ... 0."""
    for n in range(begin, end):
        first = np.uintp(n * channels)
        source, target = address_at(x, first), address_at(y, first)
        _round_row(source, target, channels, steps[n], lows[n], highs[n])


@_jit
def _round_kernel(count, threads, *arguments):
    """Run :func:`_round` on all rows."""
    fork(_round, count, threads, arguments)


@_jit
def _store(begin, end, x, channels, steps, lows, highs, shift, y):
    """Write the levels of rows, minus a shift, as int8."""
    for n in range(begin, end):
        grid = (steps[n], lows[n], highs[n], shift)
        round_row(x, n * channels, grid, y, n * channels, channels)


@_jit
def _store_kernel(count, threads, *arguments):
    """Run :func:`_store` on all rows."""
    fork(_store, count, threads, arguments)


@_jit
def _differentiate(begin, end, values, channels, grid, results):
    """Cut gradients off outside the clips, and sum what each row contributes to that of its clip.

    Args:
        begin: First row.
        end: One past the last row.
        values: The gradient of the rounded rows, and the rows.
        channels: Length of a row.
        grid: Step, lowest and highest level of each row.
        results: Arrays for the gradient of the rows and for the sum of each row.
    """
    (grad, x), (steps, lows, highs), (grad_x, sums) = values, grid, results
    zero = np.float32(0)
    for n in range(begin, end):
        step, first = steps[n], n * channels
        low, high = lows[n], highs[n]
        dropped = high == zero
        for at in range(first, first + channels):
            value = x[at] / step
            grad_x[at] = zero if dropped or value < low or value > high else grad[at]
        # The sum has a loop of its own, which writes nothing, as in fake_quant.
        total = zero
        for at in range(first, first + channels):
            value = x[at] / step
            clipped = _clamped(value, low, high)
            total += grad[at] * (np.rint(clipped) - value if clipped == value else clipped)
        sums[n] = zero if dropped else total


@_jit
def _gradient_kernel(count, threads, *arguments):
    """Run :func:`_differentiate` on all rows."""
    fork(_differentiate, count, threads, arguments)


def _steps_of(widths: Sequence[int]) -> tuple:
    """Return the smallest width, and costs and exponents of the steps to the next, as arrays."""
    costs, exponents = gains(widths)
    shifts = np.array(exponents, np.int32) << _EXPONENT
    return widths[0], np.array(costs, np.int64), shifts


def row_bits(energy: Tensor, total: int, widths: Sequence[int]) -> Tensor:
    """Compute :func:`mmwcc.kernels.row_bits` of float32 energies."""
    if len(widths) == 1:
        return torch.full(energy.shape, widths[0], dtype=torch.uint8)
    bits, keys = empty(tuple(energy.shape), torch.uint8), array_of(energy.contiguous())
    images = len(energy)
    _allocate_kernel(
        images,
        thread_count(images),
        keys.view(np.int32),
        _steps_of(widths),
        total,
        array_of(bits),
    )
    return bits


def _grids(rows: Tensor, *arguments) -> Grids:
    """Return the grids of contiguous rows; ``arguments`` are those of :func:`grids`."""
    energy, count = empty(tuple(rows.shape[:2])), rows.shape[0] * rows.shape[1]
    _measure_kernel(count, thread_count(count), address_of(rows), rows.shape[2], values_of(energy))
    return grids(energy, *arguments)


def _levels(grid: Grids) -> tuple[np.ndarray, ...]:
    """Return step, lowest and highest level of each row as flat arrays."""
    return values_of(grid.step), values_of(grid.low), values_of(grid.high)


def energy_quant(rows, clips, signed, total, widths, symmetric):
    """Compute :func:`mmwcc.kernels.energy_quant` of float32 rows."""
    rows, clips = rows.detach().contiguous(), clips.detach()
    grid = _grids(rows, clips, signed, total, widths, symmetric)
    y, count = empty_like(rows), rows.shape[0] * rows.shape[1]
    _round_kernel(
        count, thread_count(count), address_of(rows), rows.shape[2], *_levels(grid), address_of(y)
    )
    return y


def energy_int8(rows, clips, signed, total, widths, symmetric):
    """Compute :func:`mmwcc.kernels.energy_int8` of float32 rows."""
    rows, clips = rows.detach().contiguous(), clips.detach()
    grid = _grids(rows, clips, signed, total, widths, symmetric)
    levels, count = empty(tuple(rows.shape), torch.int8), rows.shape[0] * rows.shape[1]
    _store_kernel(
        count,
        thread_count(count),
        values_of(rows),
        rows.shape[2],
        *_levels(grid),
        np.float32(stored_lower(signed).item()),
        values_of(levels),
    )
    return levels, grid.step.squeeze(-1)


def energy_quant_backward(grad, rows, clips, signed, total, widths, symmetric):
    """Compute :func:`mmwcc.kernels.energy_quant_backward` of float32 rows."""
    rows, clips = rows.detach().contiguous(), clips.detach()
    grad = grad.detach().to(torch.float32).contiguous()
    grid = _grids(rows, clips, signed, total, widths, symmetric)
    grad_x, sums = empty_like(rows), torch.empty_like(grid.step)
    count = sums.numel()
    _gradient_kernel(
        count,
        thread_count(count),
        (values_of(grad), values_of(rows)),
        rows.shape[2],
        _levels(grid),
        (values_of(grad_x), values_of(sums)),
    )
    return grad_x, grid.gradient_of_clips(sums.double(), clips)
