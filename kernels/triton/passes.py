"""The passes of a transform over a map, and the tables on the device that they need.

Transforms of more than three levels take several passes. The first three levels leave the
approximation of each 8x8 patch as a small map in float32, which the next pass transforms further.
Tables tell each pass which positions are its own.

:func:`tilings` and :func:`matrix` keep their tables from call to call. Nothing else in this folder
keeps tensors.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
from torch import Tensor

from ..layout import fold, unfold
from ..transform import analysis
from .launch import MapLayout
from .tile import UNIT_COLUMN

__all__ = ['Tiling', 'geometry', 'matrix', 'tilings', 'top_map']


class Tiling:
    """One pass over a map: its levels (at most three), its tiles, and which positions are its own.

    Attributes:
        levels: Levels of this pass.
        tiles: Number of tiles of an image.
        patches_w: Number of patches in a row.
        positions: Number of positions of an image in this pass.
        order: Position of each of them in the whole transform, int32, or -1 where it belongs to the
            next pass. None if the positions are the same.
    """

    def __init__(self, height: int, width: int, levels: int, order: Tensor | None) -> None:
        self.levels, self.order = levels, order
        self.patches_w = width >> levels
        self.positions = height * width
        self.tiles = triton.cdiv(self.positions, 64)


@lru_cache(maxsize=64)
def tilings(height: int, width: int, levels: int, device: torch.device) -> tuple[Tiling, ...]:
    """Return the passes over a map of a padded size.

    Up to three levels need one pass. Deeper transforms need one for every three levels, rounded up.
    """
    if levels <= 3:
        return (Tiling(height, width, levels, None),)
    orders, rest = [], torch.arange(height * width)
    while levels > 3:
        mine, rest = _split_order(rest, height, width, levels)
        orders.append(Tiling(height, width, 3, mine.int().to(device)))
        height, width, levels = height // 8, width // 8, levels - 3
    return *orders, Tiling(height, width, levels, rest.int().to(device))


def _split_order(order: Tensor, height: int, width: int, levels: int) -> tuple[Tensor, Tensor]:
    """Split the positions of a transform into those of its first three levels and the others.

    The first part is in the order of a transform of three levels, with -1 for its approximations,
    which the others replace. The second part is in the order of the transform of those
    approximations.
    """
    total = height * width
    top, details = unfold(torch.arange(total).reshape(1, -1, 1), height, width, 3)
    deeper = unfold(
        torch.arange(total, total + top.numel()).reshape(1, -1, 1),
        height // 8,
        width // 8,
        levels - 3,
    )
    source = fold(deeper[0], deeper[1] + details).flatten()
    mine, rest = torch.full((total,), -1), torch.empty(top.numel(), dtype=torch.int64)
    first = source < total
    mine[source[first]], rest[source[~first] - total] = order[first], order[~first]
    return mine, rest


@lru_cache(maxsize=64)
def matrix(levels: int, transposed: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the transform of a tile (coefficients by pixels), or its transpose, shape (64, 64).

    Where a tile has several patches, this is the transform of one patch, repeated along the
    diagonal.
    """
    area = 1 << 2 * levels
    pixel = torch.eye(area).reshape(area, 1, 1 << levels, 1 << levels)
    patch = analysis(pixel, levels)[..., 0].t()
    tile = torch.block_diag(*[patch] * (64 // area))
    return (tile.t() if transposed else tile).contiguous().to(device, dtype)


def geometry(x: Tensor, layout: MapLayout, tiling: Tiling) -> tuple[tuple, dict]:
    """Return what every kernel over a map takes: sizes as arguments and layout as options.

    Where columns are contiguous, the width comes divided by ``GRAIN``. The kernels multiply it
    again, so that the compiler knows it to be a multiple of ``GRAIN``.
    """
    height, width = x.shape[2:]
    grain = next(g for g in (8, 4, 2, 1) if width % g == 0) if layout.unit == UNIT_COLUMN else 1
    sizes = (tiling.tiles, tiling.patches_w, height, width // grain, tiling.positions)
    return sizes, dict(
        C=x.shape[1], LEVELS=tiling.levels, UNIT=layout.unit, ALIGN=layout.align, GRAIN=grain
    )


def top_map(x: Tensor, tiling: Tiling) -> Tensor:
    """Allocate the approximation that a pass leaves, as a channels_last map in float32."""
    return torch.empty(
        x.shape[0],
        tiling.tiles // tiling.patches_w,
        tiling.patches_w,
        x.shape[1],
        device=x.device,
        dtype=torch.float32,
    ).permute(0, 3, 1, 2)
