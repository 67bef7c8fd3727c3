"""Rounding of a value to a byte on a grid, in numba."""

from __future__ import annotations

import numpy as np

from .jit import jit

__all__ = ['byte_of', 'grid_of']

_ZERO = np.float32(0)


@jit(error_model='numpy', forceinline=True)
def byte_of(value, grid):
    """Round a value to a grid of step, zero, lowest and highest level. NaN becomes 0."""
    step, zero, low, high = grid
    level = value / step
    level = low if level < low else level
    level = high if level > high else level
    return np.uint8(np.int32((np.rint(level) if level == level else _ZERO) + zero))


def grid_of(step: float, zero: int, low: int, high: int) -> tuple:
    """Return a grid as :func:`byte_of` takes it. ``low`` and ``high`` are bytes."""
    return np.float32(step), np.float32(zero), np.float32(low - zero), np.float32(high - zero)
