"""Joint shrinkage in one operator: transform a map, select its largest positions and pack them."""

from __future__ import annotations

import torch
from torch import Tensor

from .dispatch import accelerate
from .haar import _gradient_of_map, _norms, _pack, _pack_int8, _save_positions
from .layout import position_count
from .library import Cost, register
from .select import _select
from .transform import check_map

__all__ = ['haar_shrink', 'haar_shrink_int8']


def _shrink(x: Tensor, k: int, levels: int) -> tuple[Tensor, Tensor]:
    """Run the references of norms, selection and pack one after the other."""
    slot = _select(_norms(x, levels), k)
    return _pack(x, slot, k, levels), slot


def _shrink_int8(
    x: Tensor, k: int, levels: int, step: Tensor, low: int, high: int
) -> tuple[Tensor, Tensor]:
    """Do what :func:`_shrink` does, with the rows rounded to a grid."""
    slot = _select(_norms(x, levels), k)
    return _pack_int8(x, slot, k, levels, step, low, high), slot


def _fake_shrink(x, k, levels):
    """Return empty rows, shape (B, k, C), and empty slots, shape (B, N)."""
    slot = x.new_empty(x.shape[0], check_map(x, levels), dtype=torch.int32)
    return x.new_empty(x.shape[0], k, x.shape[1]), slot


def _fake_shrink_int8(x, k, levels, step, low, high):
    """Return what :func:`_fake_shrink` does, with int8 rows."""
    rows, slot = _fake_shrink(x, k, levels)
    return rows.to(torch.int8), slot


def _save_shrink(ctx, inputs, output):
    """Save what the gradient of a pack needs, with the positions that were selected."""
    x, _, levels = inputs
    ctx.set_materialize_grads(False)  # no zeros in place of the gradient of slots
    _save_positions(ctx, x, output[1], levels)


def _shrink_backward(ctx, grad, _):
    """Return the gradient of the map, from that of the rows alone: slots have none."""
    # A second derivative of the loss may not depend on the rows at all.
    return None if grad is None else _gradient_of_map(ctx, grad), None, None


def _shrink_cost(x, k, levels, *grid) -> Cost:
    """Count the transform of all positions, however many of them are kept."""
    return Cost(transform=(x[1], x[0] * position_count(x[2], x[3], levels), levels))


_shrink_op = register(
    'haar_shrink(Tensor x, SymInt k, int levels) -> (Tensor rows, Tensor slot)',
    _shrink,
    _fake_shrink,
    _save_shrink,
    _shrink_backward,
    cost=_shrink_cost,
)
_shrink_int8_op = register(
    'haar_shrink_int8(Tensor x, SymInt k, int levels, Tensor step, int low, int high) '
    '-> (Tensor rows, Tensor slot)',
    _shrink_int8,
    _fake_shrink_int8,
    cost=_shrink_cost,
)

accelerate('haar_shrink', 'haar', _shrink)
accelerate('haar_shrink_int8', 'haar', _shrink_int8)


def haar_shrink(x: Tensor, k: int, levels: int) -> tuple[Tensor, Tensor]:
    """Transform ``x`` and keep the ``k`` positions of largest norm in each image.

    This is ``T H x`` of equation (9): :func:`mmwcc.kernels.haar_norms`,
    :func:`mmwcc.kernels.select` and :func:`mmwcc.kernels.haar_pack` in one call.

    Args:
        x: Feature map, shape (B, C, H, W), any floating dtype and layout.
        k: Number of positions to keep in each image, in 1 ... N.
        levels: Depth of the transform, at least 1.

    Returns:
        ``rows`` and ``slot``. ``rows``, shape (B, k, C), dtype of ``x``, are the kept coefficients;
        their gradient is :func:`mmwcc.kernels.haar_unpack`. ``slot``, shape (B, N), int32, is the
        row of each position or -1; it carries no gradient.
    """
    return _shrink_op(x, k, levels)


def haar_shrink_int8(
    x: Tensor, k: int, levels: int, step: Tensor, low: int, high: int
) -> tuple[Tensor, Tensor]:
    """Return :func:`haar_shrink` with the rows rounded to a grid, as the integers of that grid.

    Args:
        x: Feature map, shape (B, C, H, W), any floating dtype and layout.
        k: Number of positions to keep in each image, in 1 ... N.
        levels: Depth of the transform, at least 1.
        step: Distance between two neighbours on the grid, one element, float32.
        low: Lowest integer of the grid, at least -128.
        high: Highest integer of the grid, at most 127.

    Returns:
        ``rows``, int8, as from :func:`mmwcc.kernels.haar_pack_int8`, and ``slot``. Neither carries
        a gradient.
    """
    return _shrink_int8_op(x, k, levels, step, low, high)
