"""Products of quantized operands that save each operand only once.

What is saved is the unquantized operand. Autograd of ``F.linear(quantize(x), quantize(weight))``
would keep ``x`` for the quantizer and its quantized copy for the product. The functions here keep
only ``x`` and ``weight``, and quantize again in the backward pass.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmwcc import kernels

from .quantization import OFF, QuantizationSpec, quantize_backward, quantize_forward

__all__ = ['quantized_conv2d', 'quantized_linear']


class _Operands(NamedTuple):
    """The tensors of a product; those that it does not have are None."""

    x: Tensor
    weight: Tensor
    act_alpha: Tensor | None
    act_signed: Tensor | None
    weight_alpha: Tensor | None
    weight_signed: Tensor | None
    scale: Tensor | None
    bias: Tensor | None = None

    def rounded(self, product: _Product) -> tuple[Tensor, Tensor]:
        """Return both factors, quantized and in the dtype of the product."""
        left = quantize_forward(self.x, self.act_alpha, self.act_signed, product.act)
        right = quantize_forward(self.weight, self.weight_alpha, self.weight_signed, product.wgt)
        return left.to(product.dtype), _scaled(right, self.scale).to(product.dtype)


class _Product(NamedTuple):
    """What is static about a product.

    Attributes:
        act: Grid of ``x``.
        wgt: Grid of ``weight``.
        conv: Stride, padding, dilation and groups of a convolution; None for rows times a matrix.
        dtype: The dtype that is computed in.
    """

    act: QuantizationSpec
    wgt: QuantizationSpec
    conv: tuple | None
    dtype: torch.dtype

    def multiply(self, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
        """Multiply two factors that are quantized."""
        bias = None if bias is None else bias.to(self.dtype)
        if self.conv is None:
            return F.linear(left, right.flatten(1), bias)
        return F.conv2d(left, right, bias, *self.conv)

    def gradients(self, grad: Tensor, left: Tensor, right: Tensor, needed: list[bool]) -> tuple:
        """Return the gradients of both factors and the bias, as far as they are needed."""
        if self.conv is not None:
            stride, padding, dilation, groups = self.conv
            return torch.ops.aten.convolution_backward(
                grad,
                left,
                right,
                [right.shape[0]] if needed[2] else None,
                stride,
                padding,
                dilation,
                False,
                [0, 0],
                groups,
                needed,
            )
        of_left = grad @ right.flatten(1) if needed[0] else None
        of_right = None
        if needed[1]:
            of_right = (grad.flatten(0, 1).t() @ left.flatten(0, 1)).view_as(right)
        return of_left, of_right, grad.flatten(0, 1).sum(0) if needed[2] else None


class _QuantizedProduct(torch.autograd.Function):
    """``product(quantize(x), quantize(weight))``, where the product is linear or a convolution."""

    @staticmethod
    def forward(ctx, product: _Product, *tensors: Tensor | None):
        operands = _Operands(*tensors)  # type: ignore[arg-type]  # autograd hands them over one by one
        ctx.save_for_backward(*tensors[:-1])  # all but the bias
        ctx.product = product
        ctx.bias_dtype = None if operands.bias is None else operands.bias.dtype
        with torch.autocast(operands.x.device.type, enabled=False):
            return product.multiply(*operands.rounded(product), operands.bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        product, operands = ctx.product, _Operands(*ctx.saved_tensors)
        needs = _Operands(*ctx.needs_input_grad[1:])
        need_x, need_weight = needs.x or needs.act_alpha, needs.weight or needs.weight_alpha
        of: dict[str, Any] = dict.fromkeys(_Operands._fields)
        of['x'], of['weight'], of['bias'] = product.gradients(
            grad, *operands.rounded(product), [need_x, need_weight, needs.bias]
        )
        if need_x:
            of['x'], of['act_alpha'] = quantize_backward(
                of['x'].to(operands.x.dtype),
                operands.x,
                operands.act_alpha,
                operands.act_signed,
                product.act,
            )
        if need_weight:
            of['weight'], of['weight_alpha'] = quantize_backward(
                _scaled(of['weight'].to(operands.weight.dtype), operands.scale),
                operands.weight,
                operands.weight_alpha,
                operands.weight_signed,
                product.wgt,
            )
        if needs.bias:
            of['bias'] = of['bias'].to(ctx.bias_dtype)
        return None, *_Operands(**of)


def _scaled(weight: Tensor, scale: Tensor | None) -> Tensor:
    """Multiply each output channel of a kernel by its scale."""
    return weight if scale is None else weight * scale.to(weight.dtype).reshape(-1, 1, 1, 1)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, act, wgt, scale, conv) -> Tensor:
    """Run :class:`_QuantizedProduct` in the dtype of autocast if it is on. float64 stays
    float64.
    """
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    if x.dtype == torch.float64:
        dtype = x.dtype
    act_alpha, act_signed, act_spec = act or (None, None, OFF)
    weight_alpha, weight_signed, weight_spec = wgt or (None, None, OFF)
    operands = _Operands(x, weight, act_alpha, act_signed, weight_alpha, weight_signed, scale, bias)
    return _QuantizedProduct.apply(_Product(act_spec, weight_spec, conv, dtype), *operands)


def quantized_linear(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    act=None,
    wgt=None,
    scale: Tensor | None = None,
) -> Tensor:
    """Multiply rows by a point-wise kernel, both quantized.

    Autograd saves only the unquantized rows.

    Args:
        rows: Kept coefficients or tokens, shape (B, k, C).
        weight: Point-wise kernel, shape (O, C, 1, 1).
        bias: Shape (O,). Defaults to None.
        act: ``(clip_alpha, signed, spec)`` of the quantizer of the rows, or None to leave them as
            they are. Defaults to None.
        wgt: The same for the weight. Defaults to None.
        scale: Factor on each output channel of the rounded weight, shape (O,). Defaults to None.

    Returns:
        Products, shape (B, k, O), in the autocast dtype if autocast is on.
    """
    if kernels.is_faster_as_map(rows):
        return kernels.rows_of_map(
            quantized_conv2d(kernels.rows_as_map(rows), weight, bias, act=act, wgt=wgt, scale=scale)
        )
    return _product(rows, weight, bias, act, wgt, scale, None)


def quantized_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride=(1, 1),
    padding=(0, 0),
    dilation=(1, 1),
    groups: int = 1,
    *,
    act=None,
    wgt=None,
    scale: Tensor | None = None,
) -> Tensor:
    """Convolve a feature map with a kernel, both quantized.

    Autograd saves only the unquantized map.

    Args:
        x: Feature map, shape (B, C, H, W).
        weight: Kernel, shape (O, C / groups, Kh, Kw).
        bias: Shape (O,). Defaults to None.
        stride: As in :func:`torch.nn.functional.conv2d`, a pair of integers.
        padding: Zeros on each side, a pair of integers.
        dilation: A pair of integers.
        groups: Number of groups. Defaults to 1.
        act: ``(clip_alpha, signed, spec)`` of the quantizer of the map, or None to leave it as it
            is. Defaults to None.
        wgt: The same for the weight. Defaults to None.
        scale: Factor on each output channel of the rounded weight, shape (O,). Defaults to None.

    Returns:
        Feature map, shape (B, O, H', W').
    """
    return _product(x, weight, bias, act, wgt, scale, (stride, padding, dilation, groups))
