"""Rows in numba: consecutive float32 values, such as the channels of a pixel or of a coefficient.

A row is given by the address of its first value. Its values are processed as vectors of 16, and the
last few under a mask.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from .jit import jit
from .simd import LANES, first_lanes, load, splat, store, total

__all__ = ['clear_row', 'copy_row', 'grid_of', 'round_row', 'square_row']

_ZERO = np.float32(0)
_index = np.uintp  # unsigned: numba checks signed indices for negative values
_jit = jit(error_model='numpy', forceinline=True)


@_jit
def copy_row(source, target, count):
    """Copy a row of ``count`` values."""
    count = _index(count)
    whole = count - count % _index(LANES)
    for n in range(_index(0), whole, _index(LANES)):
        store(target, n, load(source, n, None), None)
    if whole < count:
        mask = first_lanes(count - whole)
        store(target, whole, load(source, whole, mask), mask)


@_jit
def clear_row(row, count):
    """Set a row of ``count`` values to zero."""
    count, zero = _index(count), splat(_ZERO)
    whole = count - count % _index(LANES)
    for n in range(_index(0), whole, _index(LANES)):
        store(row, n, zero, None)
    if whole < count:
        store(row, whole, zero, first_lanes(count - whole))


@_jit
def square_row(row, count):
    """Return the sum of the squares of a row of ``count`` values."""
    count, squares = _index(count), splat(_ZERO)
    whole = count - count % _index(LANES)
    for n in range(_index(0), whole, _index(LANES)):
        values = load(row, n, None)
        squares = squares + values * values
    if whole < count:
        values = load(row, whole, first_lanes(count - whole))
        squares = squares + values * values
    return total(squares)


def grid_of(step: Tensor, low: int, high: int) -> tuple[np.float32, ...]:
    """Describe a grid as :func:`round_row` takes it, with the step read from its tensor.

    Returns:
        The step, the lowest level, the highest level, and what is subtracted from a level to store
        it as int8.
    """
    shift = 128 if high > 127 else 0
    return np.float32(step.item()), np.float32(low), np.float32(high), np.float32(shift)


@_jit
def round_row(source, start, grid, target, at, count):
    """Write the levels of ``count`` values of an array to another, minus a shift. NaN is level 0.

    The values begin at ``source[start]``, their levels at ``target[at]``. ``grid`` is what
    :func:`grid_of` returns.
    """
    step, low, high, shift = grid
    start, at, count = _index(start), _index(at), _index(count)
    for n in range(count):
        level = source[start + n] / step
        level = low if level < low else level
        level = high if level > high else level
        target[at + n] = (np.rint(level) if level == level else _ZERO) - shift
