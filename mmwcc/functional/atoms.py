"""Norms of the functions that wavelet coefficients stand for."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from .wavelets import filter_bank

__all__ = ['atom_norms']


@lru_cache
def _of_patch(wavelet: str, levels: int) -> tuple[float, ...]:
    """Return the norm of the function of each position of a patch, in position order."""
    filters = filter_bank(wavelet)
    low, high = (
        torch.tensor(taps, dtype=torch.double) for taps in (filters.rec_lo, filters.rec_hi)
    )
    coarse, details = torch.ones(1, dtype=torch.double), []
    for level in range(levels):
        # The functions of one level less deep, stretched by the filters of this one.
        detail = _stretched(high, level, coarse)
        coarse = _stretched(low, level, coarse)
        details.append((float(detail.norm()), float(coarse.norm())))
    norms = [details[-1][1] ** 2]
    for depth, (detail_norm, coarse_norm) in enumerate(reversed(details)):
        mixed = detail_norm * coarse_norm
        norms += [mixed, mixed, detail_norm**2] * 4**depth
    return tuple(norms)


def _stretched(taps: Tensor, level: int, function: Tensor) -> Tensor:
    """Convolve a function with taps that lie ``2**level`` apart."""
    spread = taps.new_zeros((len(taps) - 1) * 2**level + 1)
    spread[:: 2**level] = taps
    weight = function.flip(0)[None, None]
    return torch.nn.functional.conv1d(spread[None, None], weight, padding=len(function) - 1)[0, 0]


def atom_norms(wavelet: str, levels: int, positions: int, like: Tensor) -> Tensor:
    """Return the norm of the function that the coefficient of each position stands for.

    An error of a coefficient is an error of the map that is this many times as large. The norms are
    1 for orthogonal wavelets.

    Args:
        wavelet: Name of a wavelet.
        levels: Depth of the transform.
        positions: Number of positions, a multiple of ``4**levels``.
        like: Tensor whose dtype and device the norms get.

    Returns:
        Norms in position order, shape (positions, 1).
    """
    return like.new_tensor(_of_patch(wavelet, levels)).repeat(positions // 4**levels).unsqueeze(1)
