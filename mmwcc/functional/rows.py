"""The product between pack and unpack: rows of kept coefficients times a point-wise kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from mmwcc import kernels

__all__ = ['multiply_rows']


def multiply_rows(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply rows by a point-wise kernel.

    Args:
        rows: Kept coefficients or tokens, shape (B, k, C).
        weight: Point-wise kernel, shape (O, C, 1, 1).
        bias: Shape (O,). Defaults to None.

    Returns:
        Products, shape (B, k, O), in the autocast dtype if autocast is on.
    """
    # Preparing the kernel pays only if the next call has the same one, as is unlikely in training.
    training = torch.is_grad_enabled()
    if (
        rows.device.type != 'cpu'
        or bias is not None  # its own pass over the products takes as long as the preparation
        or rows.numel() == 0
        or training
        or torch.is_autocast_enabled('cpu')
        or torch.compiler.is_compiling()
    ):
        return kernels.plain_product(rows, weight, bias)
    return kernels.multiply_rows(rows, weight)
