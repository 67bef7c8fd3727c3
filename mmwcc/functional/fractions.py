"""Fractions of numbers of positions, in integers, so that they stay dynamic in exports."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import torch

__all__ = ['kept_positions', 'share_of']


def _fraction(number: float) -> tuple[int, int]:
    ratio = Fraction(number).limit_denominator(10**6)
    return ratio.numerator, ratio.denominator


# Cached, because the fraction takes longer than some layers. Compilers look through a cache, so
# they get the function itself.
_known_fraction = lru_cache(_fraction)

if torch.__version__ < '2.13':
    # Old compilers cannot trace a Fraction, and must take the result for a constant. That of torch
    # 2.13 can, even if the ratio changes between two calls.
    torch.compiler.assume_constant_result(_fraction)


def _parts(number: float) -> tuple[int, int]:
    return (_fraction if torch.compiler.is_compiling() else _known_fraction)(number)


def kept_positions(positions: int, keep_ratio: float) -> int:
    """Return k = max(1, ceil(keep_ratio * positions)).

    The arithmetic is in integers, so that k stays dynamic in exports.
    """
    numerator, denominator = _parts(keep_ratio)
    # Not -(-a // b): ONNX divides towards zero, so that would round down.
    return max(1, (positions * numerator + denominator - 1) // denominator) if numerator else 1


def share_of(positions: int, mean: float) -> int:
    """Return floor(mean * positions), in the arithmetic of :func:`kept_positions`."""
    numerator, denominator = _parts(mean)
    return positions * numerator // denominator
