"""What happens to the pixels of an unpacked map as they are written, in numba."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .jit import jit
from .simd import clamp, load, splat, store, stream

__all__ = ['Finish', 'put_finished']


class Finish(NamedTuple):
    """What is done to pixels.

    Attributes:
        has_residual: Whether a residual is added.
        bounded: Whether pixels are then clamped.
        streamed: Whether whole vectors are written past the cache.
        lowest: Lower bound.
        highest: Upper bound.
        residual: Address of the residual, a map laid out like the result.
    """

    has_residual: bool
    bounded: bool
    streamed: bool
    lowest: np.float32
    highest: np.float32
    residual: np.uintp


@jit(fastmath={'contract'}, error_model='numpy', forceinline=True)
def put_finished(y, at, value, mask, finish, streamed):
    """Add the residual to a vector of pixels, clamp it, and write it to ``y[at]``. NaN stays."""
    if finish.has_residual:
        value = value + load(finish.residual, at, mask)
    if finish.bounded:
        value = clamp(value, splat(finish.lowest), splat(finish.highest))
    if streamed:
        stream(y, at, value)
    else:
        store(y, at, value, mask)
