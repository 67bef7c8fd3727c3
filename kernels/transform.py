"""The Haar transform of maps in plain torch, and what the references of its operators share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .layout import fold, padded_size, position_count, unfold

__all__ = ['analysis', 'check_map', 'empty_map', 'passes_clamp', 'synthesis']


def analysis(x: Tensor, levels: int) -> Tensor:
    """Transform (B, C, H, W) to coefficients (B, N, C) in position order, in float32 at least."""
    height, width = x.shape[2:]
    x = x.permute(0, 2, 3, 1).to(torch.promote_types(x.dtype, torch.float32))
    running = F.pad(
        x, (0, 0, 0, padded_size(width, levels) - width, 0, padded_size(height, levels) - height)
    )
    details = []
    for _ in range(levels):
        top, bottom = running[:, 0::2], running[:, 1::2]
        total, change = top + bottom, top - bottom
        even, odd = slice(0, None, 2), slice(1, None, 2)
        kinds = [
            change[:, :, even] + change[:, :, odd],
            total[:, :, even] - total[:, :, odd],
            change[:, :, even] - change[:, :, odd],
        ]
        details.append(torch.stack(kinds, dim=3) / 2)
        running = (total[:, :, even] + total[:, :, odd]) / 2
    return fold(running, details[::-1])


def synthesis(coefficients: Tensor, height: int, width: int, levels: int) -> Tensor:
    """Invert :func:`analysis`: coefficients (B, N, C) to a map (B, height, width, C)."""
    batch, _, channels = coefficients.shape
    running, details = unfold(
        coefficients, padded_size(height, levels), padded_size(width, levels), levels
    )
    for detail in details:
        horizontal, vertical, diagonal = (detail / 2).unbind(3)
        running = running / 2
        total_even, total_odd = running + vertical, running - vertical
        change_even, change_odd = horizontal + diagonal, horizontal - diagonal
        cells = torch.stack(
            [
                total_even + change_even,
                total_odd + change_odd,
                total_even - change_even,
                total_odd - change_odd,
            ],
            dim=3,
        )
        rows, cols = running.shape[1:3]
        cells = cells.reshape(batch, rows, cols, 2, 2, channels).permute(0, 1, 3, 2, 4, 5)
        running = cells.reshape(batch, 2 * rows, 2 * cols, channels)
    return running[:, :height, :width]


def empty_map(rows: Tensor, height: int, width: int, channels_last: bool) -> Tensor:
    """Allocate the map that rows are unpacked to, shape (B, C, height, width)."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(
        rows.shape[0],
        rows.shape[2],
        height,
        width,
        dtype=rows.dtype,
        device=rows.device,
        memory_format=memory_format,
    )


def check_map(x: Tensor, levels: int) -> int:
    """Check the rank of ``x`` and return its number of positions."""
    torch._check(
        x.dim() == 4, lambda: f'mmwcc: x must have shape (B, C, H, W), got {tuple(x.shape)}.'
    )
    return position_count(x.shape[2], x.shape[3], levels)


def passes_clamp(y: Tensor, low: float | None, high: float | None) -> Tensor:
    """Tell where a clamped tensor passes a gradient: strictly between the bounds, as ReLU6 does."""
    return (y > (-torch.inf if low is None else low)) & (y < (torch.inf if high is None else high))
