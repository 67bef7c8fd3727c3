"""The Haar operators in numba for float32 maps of any size, layout and depth.

Channels_last maps go to :mod:`strips`, contiguous ones to :mod:`bands`. There is no padded copy, no
layout copy and no array of all coefficients. Patches are independent and their sums have one order,
so results do not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..layout import position_count
from .bands import band_norms, band_pack, band_shrink, band_unpack
from .finish import Finish
from .memory import address_of, array_of, as_map, empty
from .rows import grid_of
from .simd import LANES
from .strips import strip_norms, strip_pack, strip_shrink, strip_unpack

__all__ = [
    'haar_norms',
    'haar_pack',
    'haar_pack_int8',
    'haar_shrink',
    'haar_shrink_int8',
    'haar_unpack',
]

# Maps of at least this many bytes are written past the cache. Through the cache, each line would
# first be read from memory and then replaced.
_STREAMED = 1 << 23


def haar_norms(x: Tensor, levels: int) -> Tensor:
    """Compute :func:`mmwcc.kernels.haar_norms` of a float32 map."""
    norms = empty((x.shape[0], position_count(x.shape[2], x.shape[3], levels)))
    x, channels_last = as_map(x)
    write = strip_norms if channels_last else band_norms
    write(x, levels, array_of(norms))
    return norms


def _pack(x: Tensor, slot: Tensor, k: int, levels: int, grid: tuple | None) -> Tensor:
    """Allocate the rows and pack the map by the kernel of its memory format."""
    packed = empty((x.shape[0], k, x.shape[1]), torch.int8 if grid else torch.float32)
    x, channels_last = as_map(x)
    write = strip_pack if channels_last else band_pack
    write(x, levels, array_of(slot.contiguous()), grid, array_of(packed))
    return packed


def haar_pack(x: Tensor, slot: Tensor, k: int, levels: int) -> Tensor:
    """Compute :func:`mmwcc.kernels.haar_pack` of a float32 map."""
    return _pack(x, slot, k, levels, None)


def haar_pack_int8(
    x: Tensor, slot: Tensor, k: int, levels: int, step: Tensor, low: int, high: int
) -> Tensor:
    """Compute :func:`mmwcc.kernels.haar_pack_int8` of a float32 map."""
    return _pack(x, slot, k, levels, grid_of(step, low, high))


def _shrink(x: Tensor, k: int, levels: int, grid: tuple | None) -> tuple[Tensor, Tensor]:
    """Allocate the results and shrink the map by the kernel of its memory format."""
    packed = empty((x.shape[0], k, x.shape[1]), torch.int8 if grid else torch.float32)
    slot = empty((x.shape[0], position_count(x.shape[2], x.shape[3], levels)), torch.int32)
    norms = np.empty(slot.shape, np.float32)
    x, channels_last = as_map(x)
    write = strip_shrink if channels_last else band_shrink
    write(x, levels, norms, k, array_of(slot), grid, array_of(packed))
    return packed, slot


def haar_shrink(x: Tensor, k: int, levels: int) -> tuple[Tensor, Tensor]:
    """Compute :func:`mmwcc.kernels.haar_shrink` of a float32 map."""
    return _shrink(x, k, levels, None)


def haar_shrink_int8(
    x: Tensor, k: int, levels: int, step: Tensor, low: int, high: int
) -> tuple[Tensor, Tensor]:
    """Compute :func:`mmwcc.kernels.haar_shrink_int8` of a float32 map."""
    return _shrink(x, k, levels, grid_of(step, low, high))


def _finish(
    y: Tensor, residual: Tensor | None, low: float | None, high: float | None, channels_last: bool
) -> tuple:
    """Return what :class:`Finish` holds, as a plain tuple, which numba recognizes faster.

    Only whole vectors can be streamed. In a channels_last map they are vectors of channels, and
    must not be read again to add a residual or to clamp. In a contiguous map they are vectors of
    pixels.
    """
    bounded = low is not None or high is not None
    in_one_go = y.shape[1] % LANES == 0 and residual is None and not bounded
    whole = in_one_go if channels_last else y.shape[3] % LANES == 0
    return tuple(
        Finish(
            has_residual=residual is not None,
            bounded=bounded,
            streamed=whole and y.nbytes >= _STREAMED,
            lowest=np.float32(-np.inf if low is None else low),
            highest=np.float32(np.inf if high is None else high),
            residual=address_of(y if residual is None else residual),
        )
    )


def haar_unpack(
    rows: Tensor,
    slot: Tensor,
    bias: Tensor | None,
    height: int,
    width: int,
    levels: int,
    channels_last: bool,
    residual: Tensor | None,
    low: float | None,
    high: float | None,
) -> Tensor:
    """Compute :func:`mmwcc.kernels.haar_unpack` of float32 rows."""
    (batch, k, channels), rows = rows.shape, rows.contiguous()
    if channels_last:
        y = empty((batch, height, width, channels)).permute(0, 3, 1, 2)
        memory_format = torch.channels_last
    else:
        y = empty((batch, channels, height, width))
        memory_format = torch.contiguous_format
    if residual is not None:
        residual = residual.float().contiguous(memory_format=memory_format)
    shift = np.zeros(channels, np.float32) if bias is None else array_of(bias.float().contiguous())
    write = strip_unpack if channels_last else band_unpack
    write(
        y,
        levels,
        (address_of(rows), k),
        array_of(slot.contiguous()),
        shift,
        _finish(y, residual, low, high, channels_last),
    )
    return y
