"""Initial clips from data: histograms of magnitudes, and the clip that suits a histogram."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    'CALIBRATIONS',
    'Clips',
    'Magnitudes',
    'choose_clip',
    'choose_clips',
    'join',
    'measure',
    'nothing',
]

CALIBRATIONS = ('mse', 'percentile', 'lsq')
"""Ways to choose a clip: least squared error, a percentile of magnitudes, or LSQ's step.

That step is 2 E|x| / sqrt(n).
"""

_BINS = 8192
_CANDIDATES = 128


class Magnitudes(NamedTuple):
    """Histogram of |x| from 0 to the next power of two above all values.

    As the bounds are powers of two, the bins of one histogram are those of another joined in pairs,
    fours and so on. So the joint histogram is the same, however values are distributed over batches
    and ranks.

    Attributes:
        counts: Number of values in each bin, shape (bins,), float64.
        largest: The largest magnitude, a scalar tensor, float64.
        negative: Whether any value is below zero, a scalar boolean tensor.
    """

    counts: Tensor
    largest: Tensor
    negative: Tensor

    @property
    def exponent(self) -> int:
        """Exponent of the power of two at which the last bin ends."""
        return _exponent(self.largest.item())

    @property
    def centres(self) -> Tensor:
        """Return the centre of each bin, shape (bins,), float64."""
        bins = len(self.counts)
        return (torch.arange(bins, device=self.counts.device, dtype=torch.float64) + 0.5) * (
            2.0**self.exponent / bins
        )


class Clips(NamedTuple):
    """Clips of several parts of a tensor, each chosen at once from the values of its part.

    Weights are the same in every batch and on every rank. So they need no histograms that add up.

    Attributes:
        clips: A clip for each part, shape (parts,), or 0 where all values are zero.
        rows: The values that they were chosen from, shape (parts, values), or None if they are not
            kept.
    """

    clips: Tensor
    rows: Tensor | None = None

    def are_of(self, rows: Tensor) -> bool:
        """Tell whether these clips were chosen from just these values."""
        return self.rows is not None and torch.equal(self.rows, rows)

    @property
    def largest(self) -> Tensor:
        """Return the largest clip, a scalar tensor."""
        return self.clips.max()

    def filled(self) -> Tensor:
        """Return the clips, with the largest one for parts of zeros.

        That one is the least likely to cut off later values.
        """
        return torch.where(self.clips > 0, self.clips, self.largest)


def _exponent(largest: float) -> int:
    """Return the exponent of the next power of two above a value."""
    return math.frexp(largest)[1]


def measure(x: Tensor) -> Magnitudes:
    """Return the histogram of the finite magnitudes of ``x``, values of any shape."""
    x = x.detach().flatten().float()
    x = x[x.isfinite()]
    largest = x.abs().max().item() if x.numel() else 0.0
    if largest == 0:
        return nothing(x.device)
    upper = min(2.0 ** _exponent(largest), torch.finfo(torch.float32).max)
    counts = torch.histc(x.abs(), bins=_BINS, min=0, max=upper).double()
    return Magnitudes(counts, counts.new_tensor(largest), (x < 0).any())


def nothing(device: torch.device | str = 'cpu') -> Magnitudes:
    """Return the histogram of no values, or of zeros only."""
    zero = torch.zeros((), device=device, dtype=torch.float64)
    return Magnitudes(zero.new_zeros(_BINS), zero, zero.bool())


def join(one: Magnitudes | Clips, other: Magnitudes | Clips) -> Magnitudes | Clips:
    """Return the histogram of the values of both, or the larger clip of each part."""
    if isinstance(one, Clips) and isinstance(other, Clips):
        return Clips(torch.maximum(one.clips, other.clips), other.rows)
    assert isinstance(one, Magnitudes) and isinstance(other, Magnitudes), 'of the same quantizer'
    largest = torch.maximum(one.largest, other.largest)
    first, second = (widened(part, _exponent(largest.item())).counts for part in (one, other))
    return Magnitudes(first + second, largest, one.negative | other.negative)


def widened(magnitudes: Magnitudes, exponent: int) -> Magnitudes:
    """Return the same histogram with bins up to a higher power of two.

    Bins are joined so that their number stays.
    """
    counts = magnitudes.counts
    together = min(2 ** max(0, exponent - magnitudes.exponent), len(counts))
    if together > 1 and magnitudes.largest > 0:
        joined = counts.unflatten(0, (-1, together)).sum(1)
        counts = torch.cat([joined, counts.new_zeros(len(counts) - len(joined))])
    return magnitudes._replace(counts=counts)


def choose_clip(magnitudes: Magnitudes, method: str, levels: int, percentile: float) -> float:
    """Choose the clip of a uniform grid with ``levels`` steps between zero and the clip.

    Args:
        magnitudes: Statistics of the values.
        method: One of :data:`CALIBRATIONS`.
        levels: Number of positive levels of the grid.
        percentile: Share of magnitudes below the clip in percent, for 'percentile'.

    Returns:
        The clip, or 0 if every value is zero.
    """
    counts, largest = magnitudes.counts, magnitudes.largest.item()
    if largest == 0:
        return 0.0
    centres = magnitudes.centres
    if method == 'percentile':
        reached = counts.cumsum(0) >= counts.sum() * percentile / 100
        return min(
            (reached.int().argmax().item() + 1) / len(counts) * 2.0**magnitudes.exponent, largest
        )
    if method == 'lsq':
        mean = ((counts * centres).sum() / counts.sum()).item()
        return 2 * mean * levels**0.5
    clips = largest * torch.logspace(
        -3, 0, _CANDIDATES, base=10, device=counts.device, dtype=torch.float64
    )
    steps = (clips / levels).unsqueeze(1)
    error = ((centres / steps).clamp(max=levels).round() * steps - centres).square() @ counts
    return clips[error.argmin()].item()


def choose_clips(rows: Tensor, method: str | None, levels: int, percentile: float) -> Clips:
    """Choose a clip for each row of values, as :func:`choose_clip` does for the values of a tensor.

    Args:
        rows: Values, shape (parts, values). Values that are not finite count as zero.
        method: One of :data:`CALIBRATIONS`, or None for the largest magnitudes.
        levels: Number of positive levels of the grid.
        percentile: Share of magnitudes below the clip in percent, for 'percentile'.
    """
    magnitudes = rows.abs().to(torch.promote_types(rows.dtype, torch.float32))
    magnitudes = torch.where(magnitudes.isfinite(), magnitudes, 0)
    if method == 'percentile':
        rank = math.ceil(magnitudes.shape[1] * percentile / 100)
        return Clips(magnitudes.kthvalue(rank, dim=1).values)
    if method == 'lsq':
        return Clips(2 * magnitudes.mean(1) * levels**0.5)
    largest = magnitudes.amax(1)
    if method is None:
        return Clips(largest)
    best, chosen = torch.full_like(largest, torch.inf), torch.zeros_like(largest)
    for share in torch.logspace(-3, 0, _CANDIDATES, base=10, dtype=torch.float64).tolist():
        clips = largest * share
        steps = (clips / levels).clamp_min(torch.finfo(largest.dtype).tiny).unsqueeze(1)
        rounded = (magnitudes / steps).clamp_(max=levels).round_().mul_(steps)
        error = rounded.sub_(magnitudes).square_().sum(1)
        better = error < best
        best, chosen = torch.where(better, error, best), torch.where(better, clips, chosen)
    return Clips(chosen)
