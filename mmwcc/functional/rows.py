"""The product between pack and unpack: rows of kept coefficients times a point-wise kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from mmwcc import kernels

__all__ = ['multiply_rows']


def multiply_rows(rows: Tensor, weight: Tensor) -> Tensor:
    """Multiply rows by a point-wise kernel.

    Args:
        rows: Kept coefficients, shape (B, k, C).
        weight: Point-wise kernel, shape (O, C, 1, 1).

    Returns:
        Products, shape (B, k, O), in the autocast dtype if autocast is on.
    """
    # Preparing the kernel pays only if the next call has the same one, as is unlikely in training.
    training = torch.is_grad_enabled()
    if (
        rows.device.type != 'cpu'
        or training
        or torch.is_autocast_enabled('cpu')
        or torch.compiler.is_compiling()
    ):
        return kernels.plain_product(rows, weight)
    return kernels.multiply_rows(rows, weight)
