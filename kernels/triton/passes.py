"""The passes of a transform over a map, and the matrix that they multiply by.

Transforms of more than three levels take several passes. The first three levels leave the
approximation of each 8x8 patch as a small map in float32, which the next pass transforms further.

:func:`matrix` keeps its tensors from call to call. Nothing else in this folder keeps any.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from ..transform import analysis
from .launch import MapLayout
from .tile import UNIT_COLUMN

__all__ = ['Tiling', 'geometry', 'matrix', 'tilings', 'top_map']


class Tiling(NamedTuple):
    """One pass over a map: its levels (at most three), and its place in the whole transform.

    Attributes:
        levels: Levels of this pass.
        tiles: Number of tiles of an image.
        patches_w: Number of patches in a row.
        positions: Number of positions of an image in this pass.
        order: What tells kernels which positions of the whole transform are its own, see
            :func:`tile.positions_of`.
    """

    levels: int
    tiles: int
    patches_w: int
    positions: int
    order: dict[str, int]


def tilings(height: int, width: int, levels: int) -> tuple[Tiling, ...]:
    """Return the passes over a map of a padded size.

    Up to three levels need one pass. Deeper transforms need one for every three levels, rounded up.
    """
    passes, deeper = [], levels
    while deeper:
        own = min(3, deeper)
        deeper -= own
        order = dict(TOTAL=levels, DEEPER=deeper)
        tiles = triton.cdiv(height * width, 64)
        passes.append(Tiling(own, tiles, width >> own, height * width, order))
        height, width = height >> own, width >> own
    return tuple(passes)


_matrices: dict[tuple, Tensor] = {}


def matrix(levels: int, transposed: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the transform of a tile (coefficients by pixels), or its transpose, shape (64, 64).

    It is made at the first call and kept for good, since captured CUDA graphs read it later. Memory
    that is allocated while a graph is warmed up or captured belongs to that graph, which uses it
    again for something else. Graphs take what their own thread allocates, so another thread fills
    the matrix. While a graph is captured nothing can be copied to the device: a first call there
    computes the matrix as a part of the graph, and keeps nothing.
    """
    key = (levels, transposed, dtype, device)
    if key not in _matrices:
        if device.type == 'cuda' and torch.cuda.is_current_stream_capturing():
            return _matrix(levels, transposed, device).to(dtype)
        with ThreadPoolExecutor(1) as other:
            made = other.submit(_matrix, levels, transposed, torch.device('cpu')).result()
            _matrices[key] = other.submit(made.to, device, dtype).result()
    return _matrices[key]


def _matrix(levels: int, transposed: bool, device: torch.device) -> Tensor:
    """Compute :func:`matrix` on a device, in float32.

    Where a tile has several patches, this is the transform of one patch, repeated along the
    diagonal.
    """
    area = 1 << 2 * levels
    pixel = torch.eye(area, device=device).reshape(area, 1, 1 << levels, 1 << levels)
    patch = analysis(pixel, levels)[..., 0].t()
    tile = torch.block_diag(*[patch] * (64 // area))
    return (tile.t() if transposed else tile).contiguous()


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
