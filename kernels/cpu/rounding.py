"""Rounding of a row of float32 values to a grid, in numba."""

from __future__ import annotations

import numpy as np

from .jit import jit

__all__ = ['round_row']

_ZERO = np.float32(0)


@jit(error_model='numpy', forceinline=True)
def round_row(source, start, grid, target, at, count):
    """Write the levels of ``count`` values, minus a shift. NaN is level 0.

    ``grid`` is the step, the lowest level, the highest level and the shift.
    """
    step, low, high, shift = grid
    start, at, count = np.uintp(start), np.uintp(at), np.uintp(count)
    for n in range(count):
        level = source[start + n] / step
        level = low if level < low else high if level > high else level
        target[at + n] = (np.rint(level) if level == level else _ZERO) - shift
