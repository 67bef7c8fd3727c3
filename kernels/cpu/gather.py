"""Selection of the kept rows of stored coefficients, in numba for float32."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .addresses import address, address_at
from .jit import jit
from .memory import array_of, empty, values_of
from .rows import copy_row, grid_of, round_row
from .threads import fork, thread_count

__all__ = ['gather_rows', 'gather_rows_int8']

_jit = jit(error_model='numpy')


@_jit
def _positions(slot, k):
    """Return the position of each kept row, counted over the batch: the inverse of ``slot``."""
    batch, positions = slot.shape
    kept = np.empty(batch * k, np.int64)
    for image in range(batch):
        for p in range(positions):
            if slot[image, p] >= 0:
                kept[image * k + slot[image, p]] = image * positions + p
    return kept


@_jit
def _gather_lines(begin, end, coefficients, kept, channels, rows):
    """Copy kept rows, each from its position."""
    for row in range(begin, end):
        copy_row(
            address_at(address(coefficients), kept[row] * channels),
            address_at(address(rows), row * channels),
            channels,
        )


@_jit
def _gather_kernel(count, threads, *arguments):
    """Run :func:`_gather_lines` on all rows."""
    fork(_gather_lines, count, threads, arguments)


@_jit
def _gather_int8_lines(begin, end, coefficients, kept, channels, grid, rows):
    """Round kept rows to a grid, each from its position."""
    for row in range(begin, end):
        round_row(coefficients, kept[row] * channels, grid, rows, row * channels, channels)


@_jit
def _gather_int8_kernel(count, threads, *arguments):
    """Run :func:`_gather_int8_lines` on all rows."""
    fork(_gather_int8_lines, count, threads, arguments)


def gather_rows(coefficients: Tensor, slot: Tensor, k: int) -> Tensor:
    """Compute :func:`mmwcc.kernels.gather_rows` of float32 coefficients."""
    batch, _, channels = coefficients.shape
    rows = empty((batch, k, channels))
    _gather_kernel(
        batch * k,
        thread_count(batch * k),
        values_of(coefficients.contiguous()),
        _positions(array_of(slot.contiguous()), k),
        channels,
        values_of(rows),
    )
    return rows


def gather_rows_int8(
    coefficients: Tensor, slot: Tensor, k: int, step: Tensor, low: int, high: int
) -> Tensor:
    """Compute :func:`mmwcc.kernels.gather_rows_int8` of float32 coefficients."""
    batch, _, channels = coefficients.shape
    rows = empty((batch, k, channels), torch.int8)
    _gather_int8_kernel(
        batch * k,
        thread_count(batch * k),
        values_of(coefficients.contiguous()),
        _positions(array_of(slot.contiguous()), k),
        channels,
        grid_of(step, low, high),
        values_of(rows),
    )
    return rows
