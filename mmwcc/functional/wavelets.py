"""Periodized 2-D wavelet transforms of feature maps with PyWavelets' filters.

They are differentiable and written as sums of strided slices. So autograd saves no activation, and
differentiates the analysis by its adjoint. That is not the synthesis, which is another operator for
biorthogonal wavelets.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from functools import lru_cache, reduce
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ['wavedec2', 'waverec2']


class FilterBank(NamedTuple):
    """Taps of a wavelet: low-pass and high-pass of the analysis, then of the synthesis."""

    dec_lo: tuple[float, ...]
    dec_hi: tuple[float, ...]
    rec_lo: tuple[float, ...]
    rec_hi: tuple[float, ...]


@lru_cache
def filter_bank(wavelet: str) -> FilterBank:
    """Return PyWavelets' filters of ``wavelet``. For ``haar`` PyWavelets is not needed.

    Raises:
        ModuleNotFoundError: If PyWavelets is missing.
        ValueError: If PyWavelets has no wavelet of that name.
    """
    half = 0.5**0.5
    if wavelet == 'haar':
        return FilterBank((half, half), (-half, half), (half, half), (half, -half))
    try:
        import pywt
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'wavelet={wavelet!r} takes its filters from PyWavelets, which is not installed. '
            "Run `pip install PyWavelets`, or use wavelet='haar'."
        ) from error
    return FilterBank(*(tuple(taps) for taps in pywt.Wavelet(wavelet).filter_bank))


def _wrapped(x: Tensor, dim: int, before: int, after: int) -> Tensor:
    """Extend ``x`` periodically along ``dim``."""
    size = x.shape[dim]
    return x.index_select(dim, torch.arange(-before, size + after, device=x.device) % size)


def _slice(x: Tensor, dim: int, start: int, length: int, step: int) -> Tensor:
    """Return ``length`` elements of ``x`` along ``dim``, from ``start`` on, ``step`` apart."""
    return x[(slice(None),) * dim + (slice(start, start + step * (length - 1) + 1, step),)]


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return reduce(operator.add, terms)


def _decompose(
    x: Tensor, dim: int, low: tuple[float, ...], high: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """Filter and halve ``x`` along ``dim``: ``c[k] = sum_t h[t] x[2k + F/2 - t]``, indices modulo
    the size.
    """
    taps, half = len(low), x.shape[dim] // 2
    extended = _wrapped(x, dim, taps // 2 - 1, taps // 2)
    slices = [_slice(extended, dim, taps - 1 - tap, half, 2) for tap in range(taps)]
    return (
        _sum(tap * part for tap, part in zip(low, slices, strict=True)),
        _sum(tap * part for tap, part in zip(high, slices, strict=True)),
    )


def _recompose(
    approximation: Tensor, detail: Tensor, dim: int, low: tuple[float, ...], high: tuple[float, ...]
) -> Tensor:
    """Double along ``dim``: ``x[n] = sum_k cA[k] g_lo[n + F/2 - 1 - 2k] + cD[k] g_hi[...]``, modulo
    the size.
    """
    taps, half = len(low), approximation.shape[dim]
    reach = (taps + 2) // 4
    low_wrapped, high_wrapped = (
        _wrapped(band, dim, reach, reach) for band in (approximation, detail)
    )
    phases = []
    for phase in range(2):
        terms = []
        for tap in range(taps):
            # n = 2m + phase and n + F/2 - 1 - 2k = tap give k = m + (phase + F/2 - 1 - tap) / 2
            offset, odd = divmod(phase + taps // 2 - 1 - tap, 2)
            if not odd:
                terms.append(low[tap] * _slice(low_wrapped, dim, offset + reach, half, 1))
                terms.append(high[tap] * _slice(high_wrapped, dim, offset + reach, half, 1))
        phases.append(_sum(terms))
    return torch.stack(phases, dim=dim + 1).flatten(dim, dim + 1)


def decompose2(x: Tensor, filters: FilterBank) -> tuple[Tensor, Tensor]:
    """Transform one level of a channel-last map (B, H, W, C).

    Returns:
        cA, shape (B, H/2, W/2, C), and cH, cV, cD, shape (B, H/2, W/2, 3, C).
    """
    low, high = _decompose(x, 1, filters.dec_lo, filters.dec_hi)
    approximation, vertical = _decompose(low, 2, filters.dec_lo, filters.dec_hi)
    horizontal, diagonal = _decompose(high, 2, filters.dec_lo, filters.dec_hi)
    return approximation, torch.stack([horizontal, vertical, diagonal], dim=3)


def recompose2(approximation: Tensor, details: Tensor, filters: FilterBank) -> Tensor:
    """Invert :func:`decompose2`."""
    horizontal, vertical, diagonal = details.unbind(3)
    low = _recompose(approximation, vertical, 2, filters.rec_lo, filters.rec_hi)
    high = _recompose(horizontal, diagonal, 2, filters.rec_lo, filters.rec_hi)
    return _recompose(low, high, 1, filters.rec_lo, filters.rec_hi)


def wavedec2(x: Tensor, wavelet: str = 'haar', levels: int = 3) -> list:
    """Decompose each channel as ``pywt.wavedec2(..., mode='periodization')`` does.

    Args:
        x: Feature maps, shape (B, C, H, W), H and W multiples of ``2**levels``.
        wavelet: Name of a discrete PyWavelets wavelet. Defaults to 'haar'.
        levels: Depth of the transform, at least 1. Defaults to 3.

    Returns:
        ``[cA_L, (cH_L, cV_L, cD_L), ..., (cH_1, cV_1, cD_1)]``, each of shape
        (B, C, H / 2**l, W / 2**l).

    Raises:
        ValueError: If H or W is not a multiple of ``2**levels``.

    Example:
        >>> wavedec2(torch.ones(1, 1, 2, 2), levels=1)[0].item()
        2.0
    """
    height, width = x.shape[2:]
    if height % (1 << levels) or width % (1 << levels):
        raise ValueError(
            f'wavedec2: H and W must be multiples of 2**levels = {1 << levels}, got '
            f'{height}x{width}. Pad the map, for example with torch.nn.functional.pad.'
        )
    filters = filter_bank(wavelet)
    running, details = x.permute(0, 2, 3, 1), []
    for _ in range(levels):
        running, detail = decompose2(running, filters)
        details.append(tuple(band.permute(0, 3, 1, 2) for band in detail.unbind(3)))
    return [running.permute(0, 3, 1, 2), *details[::-1]]


def waverec2(coefficients: list, wavelet: str = 'haar') -> Tensor:
    """Invert :func:`wavedec2`.

    Args:
        coefficients: What :func:`wavedec2` returns.
        wavelet: Name of the wavelet. Defaults to 'haar'.

    Returns:
        Feature maps, shape (B, C, H, W).
    """
    filters = filter_bank(wavelet)
    running = coefficients[0].permute(0, 2, 3, 1)
    for bands in coefficients[1:]:
        running = recompose2(
            running, torch.stack([band.permute(0, 2, 3, 1) for band in bands], dim=3), filters
        )
    return running.permute(0, 3, 1, 2)
