"""Folding of batch normalization into the convolution before it. Only this module does it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ['fold_batch_norm', 'scale_and_bias', 'scale_channels']


@torch.no_grad()
def scale_and_bias(
    conv: nn.Conv2d, norm: _BatchNorm | None, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return the scale and bias that replace a batch normalization after a convolution.

    With the running statistics, ``norm(conv(x))`` equals ``scale * conv_without_bias(x) + bias``.

    Args:
        conv: The convolution.
        norm: The normalization, with running statistics, or None for none.
        dtype: Type to compute in. Defaults to None, which takes the type of the tensors.

    Returns:
        The scale, shape (out_channels,), and the bias, or None if nothing is added.

    Raises:
        ValueError: If the normalization has no running statistics.
    """
    if norm is None:
        scale = torch.ones(
            conv.out_channels, dtype=dtype or conv.weight.dtype, device=conv.weight.device
        )
        return scale, None if conv.bias is None else conv.bias.detach().clone()
    return _folded(conv, norm, dtype)


def _folded(conv: nn.Conv2d, norm: _BatchNorm, dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
    """Return the scale and bias of a normalization after a convolution."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError(
            f'scale_and_bias: norm must have running statistics, got a {type(norm).__name__} '
            'without. Build it with track_running_stats=True and train it.'
        )

    def cast(tensor: Tensor) -> Tensor:
        return tensor if dtype is None else tensor.to(dtype)

    scale = torch.rsqrt(cast(variance) + norm.eps)
    if norm.weight is not None:
        scale = scale * cast(norm.weight)
    shift = (0 if conv.bias is None else cast(conv.bias)) - cast(mean)
    return scale, shift * scale if norm.bias is None else shift * scale + cast(norm.bias)


def scale_channels(weight: Tensor, scale: Tensor) -> Tensor:
    """Multiply each output channel of a kernel (O, C, ...) by its scale (O,)."""
    return weight * scale.reshape(-1, *[1] * (weight.dim() - 1))


@torch.no_grad()
def fold_batch_norm(conv: nn.Conv2d, norm: _BatchNorm) -> nn.Conv2d:
    """Return one dense convolution that computes what a convolution and a normalization compute.

    Args:
        conv: The dense convolution. For a compressed one use :class:`mmwcc.inference.FoldedConv`,
            which rounds the weight before it scales it.
        norm: The normalization after it, with running statistics.

    Returns:
        A copy of ``conv`` with new weight and bias, computed in float64 and rounded once.

    Raises:
        ValueError: If the normalization has no running statistics.
    """
    scale, bias = _folded(conv, norm, torch.float64)
    folded = copy.deepcopy(conv)
    folded.weight = nn.Parameter(
        scale_channels(conv.weight, scale).to(conv.weight.dtype), conv.weight.requires_grad
    )
    folded.bias = nn.Parameter(bias.to(conv.weight.dtype), conv.weight.requires_grad)
    return folded
