"""Joint shrinkage: transform a feature map, keep k wavelet positions, and transform back.

All channels keep the same positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmwcc import kernels

from .atoms import atom_norms
from .fractions import kept_positions
from .wavelets import decompose2, filter_bank, recompose2

__all__ = ['SELECTIONS', 'WAVELETS', 'pack', 'pack_int8', 'unpack']

WAVELETS = ('haar', 'db2', 'db3', 'coif1', 'bior1.3', 'bior2.2', 'sym4')
"""Wavelets of Table 7, with filters from PyWavelets and periodized boundaries."""

SELECTIONS = ('energy', 'coarse')
"""Selection policies.

'energy' keeps the k largest joint energies (data-dependent). 'coarse' keeps the k coarsest
positions (fixed; footnote 3).
"""


def _coefficients(x: Tensor, wavelet: str, levels: int) -> Tensor:
    """Transform (B, C, H, W) to coefficients (B, N, C) in position order, in float32 at least.

    The map is padded with zeros.
    """
    height, width = x.shape[2:]
    running = x.permute(0, 2, 3, 1).to(torch.promote_types(x.dtype, torch.float32))
    running = F.pad(
        running,
        (
            0,
            0,
            0,
            kernels.padded_size(width, levels) - width,
            0,
            kernels.padded_size(height, levels) - height,
        ),
    )
    details = []
    for _ in range(levels):
        running, detail = decompose2(running, filter_bank(wavelet))
        details.append(detail)
    return kernels.fold(running, details[::-1])


def _coarse_slot(x: Tensor, k: int, levels: int) -> Tensor:
    """Return the slot of the k coarsest positions, which are the same in every image."""
    height, width = (kernels.padded_size(size, levels) for size in x.shape[2:])
    return kernels.slot_of(
        (kernels.coarse_rank(height, width, levels, x.device) < k).expand(x.shape[0], -1)
    )


def pack(
    x: Tensor,
    *,
    keep_ratio: float,
    levels: int = 3,
    wavelet: str = 'haar',
    selection: str = 'energy',
    unit_atoms: bool = False,
) -> tuple[Tensor, Tensor]:
    """Transform ``x`` and keep the coefficients at k positions.

    All channels of an image keep the same positions.

    Args:
        x: Feature map, shape (B, C, H, W).
        keep_ratio: Fraction of the N positions to keep, in (0, 1].
        levels: Depth of the transform. Defaults to 3.
        wavelet: One of :data:`WAVELETS` or any discrete PyWavelets wavelet. Defaults to 'haar'.
        selection: One of :data:`SELECTIONS`. Defaults to 'energy'.
        unit_atoms: Whether coefficients are those of functions of norm 1, so that their energies
            tell what they contribute to the map. With orthogonal wavelets they always are, with
            biorthogonal ones only if asked for. Defaults to False.

    Returns:
        ``rows`` and ``slot``. ``rows``, shape (B, k, C), are the kept coefficients, which carry the
        gradient. ``slot``, shape (B, N), int32, is the row of each position or -1 (see
        :mod:`mmwcc.kernels.layout`).

    Reference:
        Finder et al., NeurIPS 2022, equation (9): ``T H x``.
    """
    batch, channels, height, width = x.shape
    positions = kernels.position_count(height, width, levels)
    k = kept_positions(positions, keep_ratio)
    if wavelet == 'haar' and selection == 'energy':
        return kernels.haar_shrink(x, k, levels)
    if wavelet == 'haar':
        slot = _coarse_slot(x, k, levels)
        return kernels.haar_pack(x, slot, k, levels), slot
    coefficients = _coefficients(x, wavelet, levels)
    if unit_atoms:
        coefficients = coefficients * atom_norms(wavelet, levels, positions, coefficients)
    slot = (
        kernels.select(coefficients.detach().square().sum(-1), k)
        if selection == 'energy'
        else _coarse_slot(x, k, levels)
    )
    index = torch.where(slot >= 0, 0, 1).argsort(dim=1, stable=True)[:, :k]
    index = index + torch.arange(batch, device=x.device).unsqueeze(1) * positions
    # The index is saved for the backward pass: int32 takes half the memory of int64.
    rows = coefficients.flatten(0, 1).index_select(0, index.flatten().int())
    return rows.reshape(batch, k, channels).to(x.dtype), slot


def pack_int8(
    x: Tensor,
    *,
    keep_ratio: float,
    levels: int = 3,
    wavelet: str = 'haar',
    selection: str = 'energy',
    step: Tensor,
    low: int,
    high: int,
) -> tuple[Tensor, Tensor]:
    """Return :func:`pack` of ``x`` with the rows rounded to a grid, as the integers of that grid.

    Args:
        x: Feature map, shape (B, C, H, W).
        keep_ratio: As in :func:`pack`.
        levels: As in :func:`pack`.
        wavelet: As in :func:`pack`.
        selection: As in :func:`pack`.
        step: Distance between two neighbours on the grid, one element, float32.
        low: Lowest integer of the grid, at least -128.
        high: Highest integer of the grid, at most 127.

    Returns:
        ``rows``, shape (B, k, C), int8, without gradient, and ``slot`` as from :func:`pack`. NaN
        becomes 0.
    """
    if wavelet != 'haar':
        rows, slot = pack(
            x, keep_ratio=keep_ratio, levels=levels, wavelet=wavelet, selection=selection
        )
        return kernels.quantize_int8(rows.transpose(1, 2).unsqueeze(3), step, low, high), slot
    k = kept_positions(kernels.position_count(*x.shape[2:], levels), keep_ratio)
    if selection == 'energy':
        return kernels.haar_shrink_int8(x, k, levels, step, low, high)
    slot = _coarse_slot(x, k, levels)
    return kernels.haar_pack_int8(x, slot, k, levels, step, low, high), slot


def unpack(
    rows: Tensor,
    slot: Tensor,
    bias: Tensor | None = None,
    *,
    size: Sequence[int],
    levels: int = 3,
    wavelet: str = 'haar',
    channels_last: bool = False,
    unit_atoms: bool = False,
) -> Tensor:
    """Put ``rows`` back at their positions, with zeros elsewhere, and invert the transform.

    The map is cropped to its size, and the bias is added.

    Args:
        rows: Coefficients, shape (B, k, C).
        slot: Row of each position or -1, shape (B, N), int32, from :func:`pack`.
        bias: Added once to every pixel, shape (C,). Defaults to None.
        size: Height and width of the map in pixels.
        levels: Depth of the transform. Defaults to 3.
        wavelet: Wavelet that :func:`pack` used. Defaults to 'haar'.
        channels_last: Whether the result is in torch's channels_last memory format. Defaults to
            False.
        unit_atoms: As in :func:`pack`. Defaults to False.

    Returns:
        Feature map, shape (B, C, height, width), dtype of ``rows``.

    Reference:
        Finder et al., NeurIPS 2022, equation (9): ``H^T T^T rows``, with the synthesis filters in
        place of ``H^T``.
    """
    height, width = size
    if wavelet == 'haar':
        return kernels.haar_unpack(rows, slot, bias, height, width, levels, channels_last)
    batch, k, channels = rows.shape
    compute = rows.to(torch.promote_types(rows.dtype, torch.float32))
    # Each image gets a row k of zeros, which its dropped positions read.
    padded = F.pad(compute, (0, 0, 0, 1)).flatten(0, 1)
    first = torch.arange(batch, device=rows.device).unsqueeze(1) * (k + 1)
    coefficients = padded.index_select(0, (torch.where(slot >= 0, slot, k) + first).flatten().int())
    coefficients = coefficients.reshape(*slot.shape, channels)
    if unit_atoms:
        coefficients = coefficients / atom_norms(wavelet, levels, slot.shape[1], coefficients)
    running, details = kernels.unfold(
        coefficients,
        kernels.padded_size(height, levels),
        kernels.padded_size(width, levels),
        levels,
    )
    for detail in details:
        running = recompose2(running, detail, filter_bank(wavelet))
    y = running[:, :height, :width]
    if bias is not None:
        y = y + bias.to(y.dtype)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return y.to(rows.dtype).permute(0, 3, 1, 2).contiguous(memory_format=memory_format)
