"""Quantization of positions by their energy, for maps and for rows of coefficients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmwcc import kernels

from .fractions import share_of

__all__ = [
    'bits_of_positions',
    'energy_int8',
    'energy_quantize',
    'energy_quantize_backward',
    'largest_share',
    'packed_ratio',
    'unit_rows',
]


def _rows(x: Tensor) -> Tensor:
    """View rows (B, k, C) as they are, and a map (B, C, H, W) as one row for each pixel."""
    return x if x.dim() == 3 else x.permute(0, 2, 3, 1).flatten(1, 2)


def _like(rows: Tensor, x: Tensor) -> Tensor:
    """Undo :func:`_rows`."""
    if x.dim() == 3:
        return rows
    return rows.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


def _total(rows: Tensor, spec) -> int:
    """Return the bits of all positions of an image together."""
    positions = rows.shape[1] if spec.positions is None else spec.positions
    return share_of(positions, spec.mean_bits)


def largest_share(mean_bits: float, widths: Sequence[int] | None) -> float:
    """Return the largest share of positions that can have bits at all, in (0, 1].

    Args:
        mean_bits: Mean number of bits of all positions.
        widths: Numbers of bits that a position can have, ascending; empty or None if all that are
            kept have the same.
    """
    if not widths or widths[0] > 0:
        return 1.0
    return min(1.0, mean_bits / widths[1])


def packed_ratio(keep_ratio: float, mean_bits: float, widths: Sequence[int] | None) -> float:
    """Return the share of positions that are computed with: keep_ratio, or what bits allow.

    Args:
        keep_ratio: Fraction of positions to keep, in (0, 1].
        mean_bits: As in :func:`largest_share`, like widths.
    """
    return min(keep_ratio, largest_share(mean_bits, widths))


def unit_rows(x: Tensor) -> Tensor:
    """Divide each position by the root mean square of its channels. Zeros stay zero.

    Args:
        x: Rows, shape (B, k, C), or a map, shape (B, C, H, W).
    """
    axis = -1 if x.dim() == 3 else 1
    root = x.square().mean(axis, keepdim=True).sqrt()
    return x / root.clamp_min(1e-15)


def bits_of_positions(x: Tensor, spec) -> Tensor:
    """Return the bits that each position gets, shape (B, positions), uint8.

    Args:
        x: Rows, shape (B, k, C), or a map, shape (B, C, H, W).
        spec: The :class:`~mmwcc.functional.QuantizationSpec`, with widths.
    """
    rows = _rows(x)
    return kernels.position_bits(rows, _total(rows, spec), spec.widths)


def energy_quantize(x: Tensor, clips: Tensor, signed: Tensor, spec) -> Tensor:
    """Round each position as ``spec`` says, see :func:`mmwcc.kernels.energy_quant`."""
    rows = _rows(x)
    rounded = kernels.energy_quant(
        rows, clips, signed, _total(rows, spec), spec.widths, spec.symmetric
    )
    return _like(rounded, x)


def energy_int8(rows: Tensor, clips: Tensor, signed: Tensor, spec) -> tuple[Tensor, Tensor]:
    """Return levels and steps of rows (B, k, C), see :func:`mmwcc.kernels.energy_int8`."""
    return kernels.energy_int8(rows, clips, signed, _total(rows, spec), spec.widths, spec.symmetric)


def energy_quantize_backward(
    grad: Tensor, x: Tensor, clips: Tensor, signed: Tensor, spec
) -> tuple[Tensor, Tensor]:
    """Return the gradients of :func:`energy_quantize` with respect to values and clips."""
    rows = _rows(x)
    of_rows, of_clips = kernels.energy_quant_backward(
        _rows(grad), rows, clips, signed, _total(rows, spec), spec.widths, spec.symmetric
    )
    return _like(of_rows, x), of_clips * _levels(of_clips, signed) ** 1.5 * spec.alpha_scale


def _levels(clips: Tensor, signed: Tensor) -> Tensor:
    """Return the steps between zero and the clip of each width, like the clips.

    LSQ scales the gradient of a step by ``(values * n) ** -0.5``. A clip is ``n`` steps, so that
    its gradient is scaled by ``n ** 2`` times that, of which the 1.5 above remains.
    """
    bits = torch.arange(kernels.WIDTHS[0], kernels.WIDTHS[-1] + 1, device=clips.device)
    return torch.where(signed.bool(), (1 << bits - 1) - 1, (1 << bits) - 1).to(clips.dtype)
