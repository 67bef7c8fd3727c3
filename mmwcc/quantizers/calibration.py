"""Starting clips from data: histograms of magnitudes, and the clip that suits one."""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ['CALIBRATIONS', 'Magnitudes', 'choose_clip', 'join', 'measure', 'nothing']

CALIBRATIONS = ('mse', 'percentile', 'lsq')
"""Ways to choose a clip: least squared error, a percentile of magnitudes, or LSQ's 2 E|x| / sqrt(n) step."""

_BINS = 4096
_CANDIDATES = 128


class Magnitudes(NamedTuple):
    """Histogram of |x|.

    Attributes:
        counts: Number of values in each bin, shape (bins,), float64.
        largest: Upper edge of the last bin, a scalar tensor.
        negative: Whether any value is below zero, a scalar boolean tensor.
    """
    counts: Tensor
    largest: Tensor
    negative: Tensor

    @property
    def centres(self) -> Tensor:
        """Return the magnitude that each bin stands for, shape (bins,), float64."""
        bins = len(self.counts)
        return (torch.arange(bins, device=self.counts.device, dtype=torch.float64) + 0.5) / bins * self.largest


def measure(x: Tensor) -> Magnitudes:
    """Take the histogram of the finite magnitudes of ``x``, values of any shape."""
    x = x.detach().flatten().float()
    x = x[x.isfinite()]
    largest = x.abs().max() if x.numel() else x.new_zeros(())
    if not largest > 0:
        return nothing(x.device)
    counts = torch.histc(x.abs(), bins=_BINS, min=0, max=largest.item()).double()
    return Magnitudes(counts, largest.double(), (x < 0).any())


def nothing(device: torch.device | str = 'cpu') -> Magnitudes:
    """Return the histogram of no values, or of zeros alone."""
    zero = torch.zeros((), device=device, dtype=torch.float64)
    return Magnitudes(zero.new_zeros(_BINS), zero, zero.bool())


def join(one: Magnitudes, other: Magnitudes) -> Magnitudes:
    """Return the histogram of the values of both, in the bins of the one that reaches further.

    Each bin of the shorter one moves as a whole, to where its centre falls: by half a bin at most.
    """
    if one.largest < other.largest:
        one, other = other, one
    counts = one.counts
    if other.largest > 0:
        places = (other.centres / one.largest * len(counts)).long().clamp(max=len(counts) - 1)
        counts = counts.index_add(0, places, other.counts)
    return Magnitudes(counts, one.largest, one.negative | other.negative)


def choose_clip(magnitudes: Magnitudes, method: str, levels: int, percentile: float) -> float:
    """Choose the clip of a uniform grid with ``levels`` steps between zero and the clip.

    Args:
        magnitudes: Statistics of the values.
        method: One of :data:`CALIBRATIONS`.
        levels: Number of positive levels of the grid.
        percentile: Share of magnitudes below the clip in percent, for 'percentile'.

    Returns:
        The clip; 0 if every value is zero.
    """
    counts, largest = magnitudes.counts, magnitudes.largest.item()
    if largest == 0:
        return 0.0
    centres = magnitudes.centres
    if method == 'percentile':
        reached = counts.cumsum(0) >= counts.sum() * percentile / 100
        return (reached.int().argmax().item() + 1) / len(counts) * largest
    if method == 'lsq':
        mean = ((counts * centres).sum() / counts.sum()).item()
        return 2 * mean * levels**0.5
    clips = largest * torch.logspace(-3, 0, _CANDIDATES, base=10, device=counts.device, dtype=torch.float64)
    steps = (clips / levels).unsqueeze(1)
    error = ((centres / steps).clamp(max=levels).round() * steps - centres).square() @ counts
    return clips[error.argmin()].item()
