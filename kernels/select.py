"""Selection: which k wavelet positions of each image are kept."""

from __future__ import annotations

import torch
from torch import Tensor

from .dispatch import accelerate
from .library import free, register

__all__ = ['select', 'slot_of']


def slot_of(keep: Tensor) -> Tensor:
    """Number the kept positions of each image in ascending order.

    ``keep``, bool (B, N), becomes ``slot``, int32 (B, N), which is -1 where a position was dropped.
    """
    return keep.cumsum(1, dtype=torch.int32) * keep - 1


def _sortable(norms: Tensor) -> Tensor:
    """View norms as integers that sort in the same order, so that NaN has a rank of its own."""
    # The bits of non-negative floats sort like the floats. Those of a positive NaN rank above
    # infinity.
    bits = torch.int64 if norms.dtype == torch.float64 else torch.int32
    return torch.where(norms.isnan(), float('nan'), norms.abs()).view(bits)


def _select(norms: Tensor, k: int) -> Tensor:
    """Keep all norms above the k-th largest, then the first of those equal to it."""
    if norms.shape[0] == 0:
        return norms.new_empty(norms.shape, dtype=torch.int32)
    keys = _sortable(norms)
    threshold = keys.kthvalue(norms.shape[1] - k + 1, dim=1, keepdim=True).values
    above, tied = keys > threshold, keys == threshold
    return slot_of(above | (tied & (tied.cumsum(1) <= k - above.sum(1, keepdim=True))))


def _fake(norms: Tensor, k) -> Tensor:
    """Return empty slots, shape (B, N), int32."""
    torch._check(
        norms.dim() == 2,
        lambda: f'mmwcc::select: norms must have shape (B, N), got {tuple(norms.shape)}.',
    )
    return norms.new_empty(norms.shape, dtype=torch.int32)


_op = register('select(Tensor norms, SymInt k) -> Tensor', _select, _fake, cost=free)

accelerate('select', 'select', _select)


def select(norms: Tensor, k: int) -> Tensor:
    """Keep exactly the ``k`` positions of largest norm in each image.

    Among equal norms, the lower position wins.

    Args:
        norms: Squared norms over channels, shape (B, N), float32 or float64, non-negative. NaN
            ranks above infinity, so that it stays visible in the output.
        k: Number of positions to keep, in 1 ... N.

    Returns:
        ``slot``, shape (B, N), int32: the row of each kept position, numbered in ascending
        position, or -1.

    Reference:
        Finder et al., NeurIPS 2022, section 4 (joint hard shrinkage).
    """
    return _op(norms, k)
