"""Selection of the kept rows of stored coefficients, as `depthwise_haar` leaves them."""

from __future__ import annotations

import torch
from torch import Tensor

from .dispatch import accelerate
from .int8 import to_int8
from .library import free, register

__all__ = ['gather_rows', 'gather_rows_int8']


def _gather(coefficients: Tensor, slot: Tensor, k: int) -> Tensor:
    """Take the kept rows by a mask: ``slot`` numbers them in ascending position too."""
    return coefficients[slot >= 0].reshape(coefficients.shape[0], k, coefficients.shape[2])


def _gather_int8(
    coefficients: Tensor, slot: Tensor, k: int, step: Tensor, low: int, high: int
) -> Tensor:
    """Take the kept rows and round them, in float32 at least."""
    rows = _gather(coefficients, slot, k)
    return to_int8(rows.to(torch.promote_types(rows.dtype, torch.float32)), step, low, high)


def _fake_gather(coefficients, slot, k):
    """Return empty rows, shape (B, k, C), of the dtype of the coefficients."""
    return coefficients.new_empty(coefficients.shape[0], k, coefficients.shape[2])


def _fake_gather_int8(coefficients, slot, k, step, low, high):
    """Return empty int8 rows, shape (B, k, C)."""
    return coefficients.new_empty(coefficients.shape[0], k, coefficients.shape[2], dtype=torch.int8)


def _save_gather(ctx, inputs, output):
    """Save the slots, which the unpack of the same rows saves too."""
    ctx.save_for_backward(inputs[1])


def _gather_backward(ctx, grad):
    """Put the gradient of the rows back at their positions, with zeros elsewhere."""
    (slot,) = ctx.saved_tensors
    coefficients = grad.new_zeros(*slot.shape, grad.shape[2])
    return coefficients.masked_scatter((slot >= 0).unsqueeze(-1), grad), None, None


_gather_op = register(
    'gather_rows(Tensor coefficients, Tensor slot, SymInt k) -> Tensor',
    _gather,
    _fake_gather,
    _save_gather,
    _gather_backward,
    cost=free,
)
_gather_int8_op = register(
    'gather_rows_int8(Tensor coefficients, Tensor slot, SymInt k, Tensor step, int low, int high) '
    '-> Tensor',
    _gather_int8,
    _fake_gather_int8,
    cost=free,
)

accelerate('gather_rows', 'gather', _gather)
accelerate('gather_rows_int8', 'gather', _gather_int8)


def gather_rows(coefficients: Tensor, slot: Tensor, k: int) -> Tensor:
    """Select the kept rows, those that ``slot`` numbers, from all coefficients.

    Args:
        coefficients: All coefficients in position order, shape (B, N, C).
        slot: Row of each position or -1, shape (B, N), int32. Every image keeps exactly ``k``.
        k: Number of kept positions per image.

    Returns:
        Kept coefficients, shape (B, k, C), dtype of ``coefficients``.
    """
    return _gather_op(coefficients, slot, k)


def gather_rows_int8(
    coefficients: Tensor, slot: Tensor, k: int, step: Tensor, low: int, high: int
) -> Tensor:
    """Return :func:`gather_rows` rounded to a grid, shape (B, k, C), int8.

    The grid is that of :func:`mmwcc.kernels.haar_pack_int8`.
    """
    return _gather_int8_op(coefficients, slot, k, step, low, high)
