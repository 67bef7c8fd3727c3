"""The product of kept rows with a point-wise kernel."""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import accelerate
from .library import Cost, register

__all__ = ['is_faster_as_map', 'multiply_rows', 'plain_product', 'rows_as_map', 'rows_of_map']


def rows_as_map(rows: Tensor) -> Tensor:
    """View rows, shape (B, k, C), as a channels_last map one pixel high, shape (B, C, 1, k)."""
    return rows.transpose(1, 2).unsqueeze(2)


def rows_of_map(x: Tensor) -> Tensor:
    """Undo :func:`rows_as_map`: view a map, shape (B, C, 1, k), as rows (B, k, C)."""
    return x.squeeze(2).transpose(1, 2)


def is_faster_as_map(rows: Tensor) -> bool:
    """Tell whether rows are better multiplied as a convolution of a map one pixel high."""
    # On the CPU a convolution runs in oneDNN. A matrix product runs in the BLAS library that torch
    # was built with, MKL, which is less than half as fast on AMD processors (4096x256 times
    # 256x1024 on two Zen 5 cores: 5.2 against 11.5 ms).
    # On a GPU, torch lets convolutions of float32 run in tf32 (torch.backends.cudnn.allow_tf32),
    # but not matrix products (torch.backends.cuda.matmul.allow_tf32). A compressed layer multiplies
    # as the dense layer does in whose place it is. Half precision is the same either way.
    # A convolution refuses empty maps.
    kind, dtype = rows.device.type, rows.dtype
    return (kind == 'cpu' or (kind == 'cuda' and dtype == torch.float32)) and rows.numel() > 0


def plain_product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute :func:`multiply_rows` with the operators of torch, as training needs it."""
    if is_faster_as_map(rows):
        return rows_of_map(F.conv2d(rows_as_map(rows), weight, bias))
    return F.linear(rows, weight.flatten(1), bias)


def _fake(rows: Tensor, weight: Tensor) -> Tensor:
    """Return empty products, shape (B, k, O)."""
    return rows.new_empty(*rows.shape[:-1], weight.shape[0])


def _save(ctx, inputs, output):
    """Save rows and kernel for the gradient."""
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad):
    """Return the gradients of rows and kernel, as those of a matrix product."""
    rows, weight = ctx.saved_tensors
    return grad @ weight.flatten(1), (grad.flatten(0, 1).t() @ rows.flatten(0, 1)).view_as(weight)


def _cost(rows, weight) -> Cost:
    """Count one product for each row, input channel and output channel."""
    return Cost(prod(rows[:-1]) * prod(weight), 'linear')


_op = register(
    'multiply_rows(Tensor rows, Tensor weight) -> Tensor',
    plain_product,
    _fake,
    _save,
    _backward,
    cost=_cost,
)

accelerate('multiply_rows', 'product', plain_product, paths=('cpu',))


def multiply_rows(rows: Tensor, weight: Tensor) -> Tensor:
    """Multiply rows by a kernel that stays the same from call to call, as in inference.

    On the CPU the kernel is prepared once and kept. It is prepared again whenever its values have
    changed, however that happened.

    Args:
        rows: Kept coefficients, shape (B, k, C).
        weight: Point-wise kernel, shape (O, C, 1, 1), of the same dtype.

    Returns:
        Products, shape (B, k, O).
    """
    return _op(rows, weight)
