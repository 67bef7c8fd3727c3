"""Layout of wavelet coefficients: the order of positions that all transforms and kernels share.

A feature map of height H and width W is padded with zeros at the bottom and right to multiples of
``2**levels`` (Hp, Wp). It has ``N = Hp * Wp`` wavelet positions, each with one coefficient per
channel. The order is patch by patch, and coarse to fine within a patch. The map is cut into
``2**levels`` x ``2**levels`` patches in row-major order, and position
``p = patch * 4**levels + j``. Inside a patch, ``j = 0`` is cA of the deepest level. Then each level
``l = levels ... 1`` follows: its ``4**(levels - l)`` cells, row-major, hold cH, cV, cD
(PyWavelets' names and signs) at ``j = 4**(levels - l) + 3 * cell + {0, 1, 2}``.

Between operators, coefficients travel in one form only: ``rows`` and ``slot``. ``rows``, shape
(B, k, C), are the kept coefficients of each image in ascending position. ``slot``, shape (B, N),
int32, is the row of each position, or -1 where the position was dropped.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ['coarse_rank', 'fold', 'is_channels_last', 'padded_size', 'position_count', 'unfold']


def padded_size(size: int, levels: int) -> int:
    """Round ``size`` up to the next multiple of ``2**levels``."""
    step = 1 << levels
    return (size + step - 1) // step * step


def position_count(height: int, width: int, levels: int) -> int:
    """Return N, the number of wavelet positions of a map."""
    return padded_size(height, levels) * padded_size(width, levels)


def is_channels_last(x: Tensor) -> bool:
    """Tell whether the channels of ``x``, shape (B, C, H, W), are the innermost axis in memory."""
    return x.shape[1] > 1 and x.stride(1) == 1 and not x.is_contiguous()


def fold(approximation: Tensor, details: list[Tensor]) -> Tensor:
    """Gather sub-bands into rows in position order.

    Args:
        approximation: cA of the deepest level, shape (B, Hp / 2**L, Wp / 2**L, C).
        details: cH, cV, cD of levels L ... 1, coarsest first. Each level is stacked as
            (B, h, w, 3, C), where h and w are the size of its sub-bands.

    Returns:
        Coefficients, shape (B, N, C).
    """
    batch, rows, cols, channels = approximation.shape
    parts = [approximation.reshape(batch, rows * cols, 1, channels)]
    for depth, detail in enumerate(details):
        side = 1 << depth
        cells = detail.reshape(batch, rows, side, cols, side, 3, channels).permute(
            0, 1, 3, 2, 4, 5, 6
        )
        parts.append(cells.reshape(batch, rows * cols, 3 * side * side, channels))
    return torch.cat(parts, dim=2).flatten(1, 2)


def unfold(
    coefficients: Tensor, height: int, width: int, levels: int
) -> tuple[Tensor, list[Tensor]]:
    """Undo :func:`fold`: split coefficients, shape (B, Hp * Wp, C), into the sub-bands of a map.

    Args:
        coefficients: All coefficients in position order.
        height: Padded height Hp of the map.
        width: Padded width Wp of the map.
        levels: Depth of the transform.

    Returns:
        ``approximation`` and ``details`` as :func:`fold` takes them.
    """
    batch, _, channels = coefficients.shape
    rows, cols = height >> levels, width >> levels
    patches = coefficients.reshape(batch, rows * cols, 1 << 2 * levels, channels)
    approximation = patches[:, :, 0].reshape(batch, rows, cols, channels)
    details = []
    for depth in range(levels):
        side = 1 << depth
        cells = patches[:, :, side * side : 4 * side * side]
        cells = cells.reshape(batch, rows, cols, side, side, 3, channels).permute(
            0, 1, 3, 2, 4, 5, 6
        )
        details.append(cells.reshape(batch, rows * side, cols * side, 3, channels))
    return approximation, details


def coarse_rank(height: int, width: int, levels: int, device: torch.device | str = 'cpu') -> Tensor:
    """Rank the positions of a padded map from coarse to fine.

    cA comes first, then cH, cV and cD of each level, each sub-band row-major.

    Returns:
        Ranks in position order, shape (height * width,), int64: a permutation of
        ``0 ... height * width - 1``.
    """
    rows, cols = height >> levels, width >> levels
    approximation = torch.arange(rows * cols, device=device).reshape(1, rows, cols, 1)
    details = []
    for depth in range(levels):
        size = (rows << depth) * (cols << depth)
        band = (
            torch.arange(3 * size, device=device).reshape(1, 3, rows << depth, cols << depth) + size
        )
        details.append(band.permute(0, 2, 3, 1).unsqueeze(-1))
    return fold(approximation, details).flatten()
