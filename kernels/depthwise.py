"""A depthwise convolution fused with the Haar transform of its result.

Between the two point-wise convolutions of an inverted residual block, the feature map is at its
widest. This operator reads that map once. It writes the coefficients of the filtered map together
with their norms, and never stores the filtered map itself.
"""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import accelerate
from .haar import haar_unpack
from .layout import position_count
from .library import Cost, register
from .transform import analysis, check_map, passes_clamp

__all__ = ['depthwise_haar']


def _filtered(x, weight, bias, dilation):
    """Apply the depthwise convolution in float32 at least, zero-padded so that the size stays."""
    compute = torch.promote_types(x.dtype, torch.float32)
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(
        x.to(compute),
        weight.to(compute),
        None if bias is None else bias.to(compute),
        1,
        padding,
        dilation,
        x.shape[1],
    )


def _depthwise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dilation: int,
    levels: int,
    low: float | None,
    high: float | None,
) -> tuple[Tensor, Tensor]:
    """Filter, clamp and transform; return all coefficients and their squared norms over channels.

    The norms come from the coefficients before these are rounded to the dtype of ``x``.
    """
    y = _filtered(x, weight, bias, dilation)
    if low is not None or high is not None:
        y = y.clamp(low, high)
    coefficients = analysis(y, levels)
    return coefficients.to(x.dtype), coefficients.square().sum(-1)


def _fake_depthwise(x, weight, bias, dilation, levels, low, high):
    """Return empty coefficients and norms of the right shapes and dtypes."""
    positions = check_map(x, levels)
    norms = x.new_empty(x.shape[0], positions, dtype=torch.promote_types(x.dtype, torch.float32))
    return x.new_empty(x.shape[0], positions, x.shape[1]), norms


def _save_depthwise(ctx, inputs, output):
    """Save the arguments: the filtered map is computed again in the gradient."""
    x, weight, bias, ctx.dilation, ctx.levels, ctx.low, ctx.high = inputs
    ctx.save_for_backward(x, weight, bias)
    ctx.mark_non_differentiable(output[1])


def _depthwise_backward(ctx, grad, _):
    """Return the gradients of ``x``, ``weight`` and ``bias``.

    No position is dropped here, so the transform is inverted with every position kept. The filtered
    map was not saved: where there is a clamp, it is computed again to see which values passed.
    """
    x, weight, bias = ctx.saved_tensors
    everything = torch.arange(grad.shape[1], dtype=torch.int32, device=grad.device)
    slot = everything.expand(grad.shape[:2])
    height, width = x.shape[2:]
    grad = haar_unpack(grad, slot, None, height, width, ctx.levels, x.stride(1) == 1)
    if ctx.low is not None or ctx.high is not None:
        low, high = ctx.low, ctx.high
        y = _filtered(x, weight, bias, ctx.dilation).clamp(low, high)
        grad = torch.where(passes_clamp(y, low, high), grad, 0)
    padding = ctx.dilation * (weight.shape[-1] // 2)
    needed = [
        ctx.needs_input_grad[0],
        ctx.needs_input_grad[1],
        bias is not None and ctx.needs_input_grad[2],
    ]
    grads = torch.ops.aten.convolution_backward(
        grad,
        x,
        weight.to(x.dtype),
        [x.shape[1]],
        [1, 1],
        [padding, padding],
        [ctx.dilation, ctx.dilation],
        False,
        [0, 0],
        x.shape[1],
        needed,
    )
    grads = [
        None if grad is None else grad.to(dtype)
        for grad, dtype in zip(grads, (x.dtype, weight.dtype, weight.dtype), strict=True)
    ]
    return *grads, None, None, None, None


def _depthwise_cost(x, weight, bias, dilation, levels, *bounds) -> Cost:
    """Count one product for each tap of each pixel, and the transform of every position."""
    positions = x[0] * position_count(x[2], x[3], levels)
    return Cost(prod(x) * prod(weight[1:]), 'conv', (x[1], positions, levels))


_depthwise_op = register(
    'depthwise_haar(Tensor x, Tensor weight, Tensor? bias, int dilation, int levels, float? low, '
    'float? high) -> (Tensor, Tensor)',
    _depthwise,
    _fake_depthwise,
    _save_depthwise,
    _depthwise_backward,
    cost=_depthwise_cost,
)
accelerate('depthwise_haar', 'depthwise', _depthwise)


def depthwise_haar(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    levels: int,
    dilation: int = 1,
    low: float | None = None,
    high: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Filter each channel of a map and transform the result, without storing the filtered map.

    Args:
        x: Feature map, shape (B, C, H, W).
        weight: Depthwise kernel, shape (C, 1, K, K), K odd. The stride is 1, and zeros are padded
            so that the size stays.
        bias: Added to every filtered pixel, shape (C,), or None.
        levels: Depth of the transform.
        dilation: Distance between the taps in pixels. Defaults to 1.
        low: Lower bound to which the filtered map is clamped before the transform. Defaults to
            None, no bound.
        high: Upper bound, likewise. With ``low=0, high=6`` the map passes through ReLU6.

    Returns:
        Two tensors. The coefficients of all positions in position order, shape (B, N, C), dtype of
        ``x``, carry the gradient. Their squared norms over channels, shape (B, N), float32 (float64
        for float64 input), carry none.

    Raises:
        ValueError: If weight is not an odd square depthwise kernel of ``x``.
    """
    if (
        x.dim() != 4
        or weight.shape[:2] != (x.shape[1], 1)
        or weight.shape[2:] != (weight.shape[-1],) * 2
        or weight.shape[-1] % 2 == 0
    ):
        raise ValueError(
            'depthwise_haar: x must have shape (B, C, H, W) and weight (C, 1, K, K) with K odd, '
            f'got {tuple(x.shape)} and {tuple(weight.shape)}. Use torch.nn.functional.conv2d and '
            'haar_norms for other convolutions.'
        )
    return _depthwise_op(x, weight, bias, dilation, levels, low, high)
