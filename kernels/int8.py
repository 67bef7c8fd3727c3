"""Integer arithmetic of 8-bit layers: rounding to int8 rows, and their product with an int8 kernel.

A signed grid of levels ``low ... high`` fits int8 as it is. An unsigned grid, whose ``high`` is
above 127, is stored 128 lower. That costs nothing: the product changes by 128 times the sum of each
kernel row, which the bias can absorb.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from .dispatch import accelerate
from .library import Cost, free, register

__all__ = ['int8_linear', 'quantize_int8', 'to_int8']


def to_int8(values: Tensor, step: Tensor, low: int, high: int) -> Tensor:
    """Round floating values to the levels ``low ... high``, 128 lower if ``high`` is above 127."""
    levels = (values / step.to(values.dtype)).clamp(low, high).round()
    return (levels.nan_to_num(0.0) - (128 if high > 127 else 0)).to(torch.int8)


def _quantize(x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
    """Move the channels to the last axis, one row for each pixel, and round."""
    rows = x.permute(0, 2, 3, 1).to(torch.promote_types(x.dtype, torch.float32)).flatten(1, 2)
    return to_int8(rows, step, low, high).contiguous()


def _fake_quantize(x, step, low, high):
    """Return empty int8 rows, shape (B, H * W, C)."""
    torch._check(
        x.dim() == 4, lambda: f'mmwcc: x must have shape (B, C, H, W), got {tuple(x.shape)}.'
    )
    return x.new_empty(x.shape[0], x.shape[2] * x.shape[3], x.shape[1], dtype=torch.int8)


def _linear(
    rows: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    factors: Tensor | None = None,
    offset: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Multiply in float64, which holds the sums exactly on every device, and scale.

    A product of int8 vectors is below 2**53 for up to 2**38 elements.
    """
    sums = rows.double() @ weight.double().t()
    products = (sums if offset is None else sums + offset).to(scale.dtype) * scale
    if factors is not None:
        products = products * factors.to(scale.dtype).unsqueeze(-1)
    return (products if bias is None else products + bias).to(dtype or scale.dtype)


def _fake_linear(rows, weight, scale, bias, factors=None, offset=None, dtype=None):
    """Return empty products, shape (B, k, O), by default of the dtype of the scale."""
    return scale.new_empty(*rows.shape[:-1], weight.shape[0], dtype=dtype)


def _linear_cost(rows, weight, *rest) -> Cost:
    """Count one product for each row, input channel and output channel."""
    return Cost(prod(rows[:-1]) * prod(weight), 'int8_linear')


_quantize_op = register(
    'quantize_int8(Tensor x, Tensor step, int low, int high) -> Tensor',
    _quantize,
    _fake_quantize,
    cost=free,
)
_linear_op = register(
    'int8_linear(Tensor rows, Tensor weight, Tensor scale, Tensor? bias, Tensor? factors=None, '
    'Tensor? offset=None, ScalarType? dtype=None) -> Tensor',
    _linear,
    _fake_linear,
    cost=_linear_cost,
)

accelerate('quantize_int8', 'int8', _quantize)
accelerate('int8_linear', 'int8', _linear, dtype=torch.int8)


def quantize_int8(x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
    """Round a feature map to a grid and lay it out as rows: one row of C channels for each pixel.

    Args:
        x: Feature map, shape (B, C, H, W), any floating dtype and layout.
        step: Distance between two levels of the grid, one element, float32.
        low: Lowest level, at least -128.
        high: Highest level, at most 127, or at most 255 if ``low`` is not negative.

    Returns:
        ``clamp(x / step, low, high)``, rounded half to even, minus 128 if ``high`` is above 127.
        Shape (B, H * W, C), int8. NaN becomes level 0.
    """
    return _quantize_op(x, step, low, high)


def int8_linear(
    rows: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    factors: Tensor | None = None,
    offset: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Multiply int8 rows by an int8 kernel, exactly, and scale the sums.

    Args:
        rows: Rows of integers, shape (B, k, C), int8, contiguous.
        weight: Kernel, shape (O, C), int8.
        scale: Factor on each output channel, shape (O,), floating.
        bias: Added after scaling, shape (O,). Defaults to None.
        factors: Factor on each row, shape (B, k). Defaults to None.
        offset: Added to the sums of each output channel, shape (O,), int32. Defaults to None.
        dtype: Dtype of the result, which is computed in that of ``scale``, and in float32 at least
            on a GPU. Defaults to None, that of ``scale``.

    Returns:
        ``(rows @ weight.T + offset) * scale * factors + bias``, shape (B, k, O). The sums are in
        int32, exact up to C = 2**17, or 2**16 if ``offset`` is 128 times the sum of each row of
        the kernel.
    """
    return _linear_op(rows, weight, scale, bias, factors, offset, dtype)
