"""Folding of batch normalization into the convolution before it, the one place that does it."""
from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

__all__ = ['fold_batch_norm', 'scale_and_bias', 'scale_channels']


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor


@torch.no_grad()
def scale_and_bias(conv: nn.Conv2d, norm: nn.Module | None,
                   dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor | None]:
    """Return what stands for a batch normalization behind a convolution, by output channel.

    With its running statistics, it makes ``scale * conv_without_bias(x) + bias`` of ``conv(x)``.

    Args:
        conv: The convolution.
        norm: The normalization, with running statistics, or None for none.
        dtype: Type to compute in. Defaults to None, that of the tensors.

    Returns:
        The scale, shape (out_channels,), and the bias, None where nothing is added.
    """
    if norm is None:
        scale = torch.ones(conv.out_channels, dtype=dtype or conv.weight.dtype,
                           device=conv.weight.device)
        return scale, None if conv.bias is None else conv.bias.detach().clone()
    cast = _unchanged if dtype is None else lambda tensor: tensor.to(dtype)
    scale = torch.rsqrt(cast(norm.running_var) + norm.eps)
    if norm.weight is not None:
        scale = scale * cast(norm.weight)
    shift = (0 if conv.bias is None else cast(conv.bias)) - cast(norm.running_mean)
    return scale, shift * scale if norm.bias is None else shift * scale + cast(norm.bias)


def scale_channels(weight: Tensor, scale: Tensor) -> Tensor:
    """Multiply each output channel of a kernel (O, C, ...) with its scale (O,)."""
    return weight * scale.reshape(-1, *[1] * (weight.dim() - 1))


@torch.no_grad()
def fold_batch_norm(conv: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    """Return a copy of a dense convolution that computes what it and the normalization compute.

    Args:
        conv: The convolution. For a compressed one use :class:`mmwcc.inference.FoldedConv`, whose
            weight is rounded before it is scaled.
        norm: The normalization behind it, with running statistics.

    Returns:
        The copy, computed in float64 and rounded once.
    """
    scale, bias = scale_and_bias(conv, norm, torch.float64)
    folded = copy.deepcopy(conv)
    folded.weight = nn.Parameter(scale_channels(conv.weight, scale).to(conv.weight.dtype),
                                 conv.weight.requires_grad)
    folded.bias = nn.Parameter(bias.to(conv.weight.dtype), conv.weight.requires_grad)
    return folded
