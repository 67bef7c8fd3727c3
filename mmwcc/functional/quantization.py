"""Fake quantization, and products of quantized operands that save each operand only once.

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

__all__ = ['QuantizationSpec', 'normalization', 'quantize', 'quantized_conv2d', 'quantized_linear']


class QuantizationSpec(NamedTuple):
    """How a quantizer rounds: everything about it that is not a tensor.

    Operators, layers and exports read this. Besides it, they read only the clip and the sign of a
    quantizer.

    Attributes:
        bits: Width in 2 ... 16, or 32 for no quantization.
        symmetric: Whether a signed grid leaves out its lowest level.
        clip_gradient: Whether the gradient is zero outside the clips.
        alpha_scale: Factor on the gradient of ``clip_alpha``.
        normalize: '', 'standard' (quantize ``(w - mean) / std``) or 'rescale' (the same, times
            ``std``). Mean and standard deviation are those of the whole tensor.
        rounding_gradient: Whether values between the clips add their rounding error to the gradient
            of ``clip_alpha``. If not, it is the gradient of the clamp alone, as in PACT.
        axes: Axes of the tensor along which the clip differs. It is shared over all others. ()
            means one clip, (0,) means one for each output channel of a kernel.
    """

    bits: int
    symmetric: bool = True
    clip_gradient: bool = True
    alpha_scale: float = 1.0
    normalize: str = ''
    rounding_gradient: bool = True
    axes: tuple[int, ...] = ()

    @property
    def grid(self) -> tuple:
        """Return the static arguments of the fake-quantization operator."""
        return (
            self.bits,
            self.symmetric,
            self.clip_gradient,
            self.alpha_scale,
            self.rounding_gradient,
        )

    def spread(self, per_clip: Tensor, x: Tensor) -> Tensor:
        """Return a tensor with one element per clip in the shape that broadcasts to ``x``."""
        if not self.axes:
            return per_clip
        shape = [size if axis in self.axes else 1 for axis, size in enumerate(x.shape)]
        return per_clip.reshape(shape)


OFF = QuantizationSpec(bits=32)


def normalization(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and unbiased standard deviation of a weight tensor, in float32 at least.

    They carry no gradient.
    """
    std, mean = torch.std_mean(weight.detach().to(torch.promote_types(weight.dtype, torch.float32)))
    return mean, std


def _forward(
    x: Tensor, clip_alpha: Tensor | None, signed: Tensor | None, spec: QuantizationSpec
) -> Tensor:
    """Round values as ``spec`` says. At 32 bits, return ``x`` itself."""
    if spec.bits == 32:
        return x
    assert clip_alpha is not None, 'only 32 bits go without a clip'
    clip_alpha = spec.spread(clip_alpha, x)
    if not spec.normalize:
        return kernels.fake_quant(x, clip_alpha, signed, *spec.grid)
    mean, std = normalization(x)
    rounded = kernels.fake_quant((x - mean) / std, clip_alpha, signed, *spec.grid)
    return rounded * std if spec.normalize == 'rescale' else rounded


def _backward(
    grad: Tensor,
    x: Tensor,
    clip_alpha: Tensor | None,
    signed: Tensor | None,
    spec: QuantizationSpec,
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of ``x`` and ``clip_alpha``.

    Mean and deviation of a normalized tensor count as constants.
    """
    if spec.bits == 32:
        # A zero, not None: DistributedDataParallel needs every gradient in every step.
        return grad, None if clip_alpha is None else torch.zeros_like(clip_alpha)
    assert clip_alpha is not None, 'only 32 bits go without a clip'
    clips, values = spec.spread(clip_alpha, x), x
    if spec.normalize:
        mean, std = normalization(x)
        values = (x - mean) / std
        grad = grad * std if spec.normalize == 'rescale' else grad
    grad, grad_alpha = kernels.fake_quant_backward(grad, values, clips, signed, *spec.grid)
    return grad / std if spec.normalize else grad, grad_alpha.view_as(clip_alpha)


class _Quantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, clip_alpha, signed, spec):
        ctx.save_for_backward(x, clip_alpha, signed)
        ctx.spec = spec
        y = _forward(x, clip_alpha, signed, spec)
        return y.clone() if y is x else y  # a view could not be written to in place

    @staticmethod
    @once_differentiable  # straight-through estimates have no useful second derivative
    def backward(ctx, grad):
        x, clip_alpha, signed = ctx.saved_tensors
        return *_backward(grad, x, clip_alpha, signed, ctx.spec), None, None


def quantize(x: Tensor, clip_alpha: Tensor, signed: Tensor, spec: QuantizationSpec) -> Tensor:
    """Return ``x`` rounded as ``spec`` says, differentiable in ``x`` and ``clip_alpha``.

    Args:
        x: Values, any shape.
        clip_alpha: Learned clip: one element, or one for each index of ``spec.axes``.
        signed: Whether negative values have levels, one boolean element.
        spec: The grid.

    Returns:
        Rounded values, shape of ``x``. At 32 bits this is ``x`` itself if no gradient is recorded.

    Raises:
        RuntimeError: If its gradient is differentiated again.

    Reference:
        Finder et al., NeurIPS 2022, equations (1) and (2).
    """
    if spec.bits == 32 and not torch.is_grad_enabled():
        return x
    return _Quantize.apply(x, clip_alpha, signed, spec)


class _QuantizedProduct(torch.autograd.Function):
    """``product(quantize(x), quantize(weight))``, where the product is linear or a convolution."""

    @staticmethod
    def forward(
        ctx,
        x,
        weight,
        bias,
        act_alpha,
        act_signed,
        weight_alpha,
        weight_signed,
        scale,
        act,
        wgt,
        conv,
        dtype,
    ):
        ctx.save_for_backward(x, weight, act_alpha, act_signed, weight_alpha, weight_signed, scale)
        ctx.static = act, wgt, conv, dtype
        ctx.bias = None if bias is None else bias.dtype
        with torch.autocast(x.device.type, enabled=False):
            left = _forward(x, act_alpha, act_signed, act).to(dtype)
            right = _scaled(_forward(weight, weight_alpha, weight_signed, wgt), scale).to(dtype)
            if conv is None:
                return F.linear(left, right.flatten(1))
            return F.conv2d(left, right, None if bias is None else bias.to(dtype), *conv)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight, act_alpha, act_signed, weight_alpha, weight_signed, scale = ctx.saved_tensors
        act, wgt, conv, dtype = ctx.static
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        need_x = need_x or ctx.needs_input_grad[3]
        need_weight = need_weight or ctx.needs_input_grad[5]
        left = _forward(x, act_alpha, act_signed, act).to(dtype)
        right = _scaled(_forward(weight, weight_alpha, weight_signed, wgt), scale).to(dtype)
        grad_x: Any = None
        grad_weight: Any = None
        grad_bias: Any = None
        grad_act_alpha = grad_weight_alpha = None
        if conv is None:
            if need_x:
                grad_x = grad @ right.flatten(1)
            if need_weight:
                grad_weight = (grad.flatten(0, 1).t() @ left.flatten(0, 1)).view_as(weight)
        else:
            stride, padding, dilation, groups = conv
            grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
                grad,
                left,
                right,
                None if ctx.bias is None else [weight.shape[0]],
                stride,
                padding,
                dilation,
                False,
                [0, 0],
                groups,
                [need_x, need_weight, need_bias],
            )
        if need_x:
            grad_x, grad_act_alpha = _backward(grad_x.to(x.dtype), x, act_alpha, act_signed, act)
        if need_weight:
            grad_weight, grad_weight_alpha = _backward(
                _scaled(grad_weight.to(weight.dtype), scale),
                weight,
                weight_alpha,
                weight_signed,
                wgt,
            )
        if need_bias:
            grad_bias = grad_bias.to(ctx.bias)
        return (
            grad_x,
            grad_weight,
            grad_bias,
            grad_act_alpha,
            None,
            grad_weight_alpha,
            None,
            None,
            None,
            None,
            None,
            None,
        )


def _scaled(weight: Tensor, scale: Tensor | None) -> Tensor:
    """Multiply each output channel of a kernel by its scale."""
    return weight if scale is None else weight * scale.to(weight.dtype).reshape(-1, 1, 1, 1)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, act, wgt, scale, conv) -> Tensor:
    """Run :class:`_QuantizedProduct` in the dtype of autocast if it is on. float64 stays float64."""
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    if x.dtype == torch.float64:
        dtype = x.dtype
    act_alpha, act_signed, act_spec = act or (None, None, OFF)
    weight_alpha, weight_signed, weight_spec = wgt or (None, None, OFF)
    return _QuantizedProduct.apply(
        x,
        weight,
        bias,
        act_alpha,
        act_signed,
        weight_alpha,
        weight_signed,
        scale,
        act_spec,
        weight_spec,
        conv,
        dtype,
    )


def quantized_linear(
    rows: Tensor, weight: Tensor, *, act=None, wgt=None, scale: Tensor | None = None
) -> Tensor:
    """Multiply rows by a point-wise kernel, both quantized.

    Autograd saves only the unquantized rows.

    Args:
        rows: Kept coefficients, shape (B, k, C).
        weight: Point-wise kernel, shape (O, C, 1, 1).
        act: ``(clip_alpha, signed, spec)`` of the quantizer of the rows, or None to leave them as
            they are. Defaults to None.
        wgt: The same for the weight. Defaults to None.
        scale: Factor on each output channel of the rounded weight, shape (O,). Defaults to None.

    Returns:
        Products, shape (B, k, O), in the autocast dtype if autocast is on.
    """
    if kernels.is_faster_as_map(rows):
        return kernels.rows_of_map(
            quantized_conv2d(kernels.rows_as_map(rows), weight, act=act, wgt=wgt, scale=scale)
        )
    return _product(rows, weight, None, act, wgt, scale, None)


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
