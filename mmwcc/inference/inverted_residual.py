"""A fused inverted residual block for inference: a depthwise between two compressed 1x1 layers."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmwcc import kernels
from mmwcc.functional import kept_positions, multiply_rows, one_call, pack, quantize
from mmwcc.layers import CompressedConvMixin, LeanReLU, LeanReLU6, WaveletCompressedConv2d
from mmwcc.model_tree import LayerState
from mmwcc.quantizers import UniformQuantizer

from .fold import scale_and_bias, scale_channels

__all__ = ['FoldedConv', 'FusedInvertedResidual', 'clamp_bounds']

_BOUNDS = {
    nn.Identity: (None, None),
    nn.ReLU: (0.0, None),
    LeanReLU: (0.0, None),
    nn.ReLU6: (0.0, 6.0),
    LeanReLU6: (0.0, 6.0),
}


def clamp_bounds(activation: nn.Module | None) -> tuple[float | None, float | None] | None:
    """Return the lower and upper bound that ``activation`` clamps to, or None if it is no clamp.

    A bound is None if there is no limit on that side.

    Example:
        >>> clamp_bounds(nn.ReLU6()), clamp_bounds(nn.SiLU())
        ((0.0, 6.0), None)
    """
    if type(activation) is nn.Hardtanh:
        return float(activation.min_val), float(activation.max_val)
    return (None, None) if activation is None else _BOUNDS.get(type(activation))


class ConvGeometry(NamedTuple):
    """What ``torch.nn.functional.conv2d`` takes besides tensors, in its order."""

    stride: tuple[int, ...]
    padding: Any  # a size for each side, 'same' or 'valid'
    dilation: tuple[int, ...]
    groups: int


class FoldedConv(nn.Module):
    """A convolution with the following batch normalization folded in, and with its activation.

    The weight is first fake-quantized and then scaled by the normalization, so the layer computes
    the same function as the unfolded layers up to rounding. A quantizer of the input is kept.

    Args:
        conv: A convolution, dense or compressed. A compressed one is pointwise.
        norm: The batch normalization after it, with running statistics. Defaults to None.
        activation: The activation after that. Defaults to None.

    Attributes:
        bounds: The bounds that the activation clamps to, see :func:`clamp_bounds`. None if it is no
            clamp.
    """

    weight: Tensor
    bias: Tensor | None
    act_quant: UniformQuantizer | None
    activation: nn.Module
    keep_ratio: float
    packed_ratio: float
    selection: str
    levels: int
    wavelet: str

    def __init__(
        self, conv: nn.Conv2d, norm: _BatchNorm | None = None, activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.geometry = ConvGeometry(conv.stride, conv.padding, conv.dilation, conv.groups)
        self.compressed = isinstance(conv, WaveletCompressedConv2d)
        if isinstance(conv, WaveletCompressedConv2d):
            self.keep_ratio, self.selection = conv.keep_ratio, conv.selection
            self.packed_ratio = conv.packed_ratio
            self.levels, self.wavelet = conv.levels, conv.wavelet
        self.act_quant = getattr(conv, 'act_quant', None)
        self.weight_bits = LayerState.of(conv).weight_bits  # those of the weight before folding
        self.weight_scales = getattr(getattr(conv, 'weight_quant', None), 'extra_clips', 0)
        self.activation = nn.Identity() if activation is None else activation
        self.bounds = clamp_bounds(activation)
        weight = conv.rounded_weight() if isinstance(conv, CompressedConvMixin) else conv.weight
        scale, bias = scale_and_bias(conv, norm)
        self.register_buffer('weight', scale_channels(weight.detach(), scale))
        self.register_buffer('bias', bias)

    def quantized(self, x: Tensor) -> Tensor:
        """Return the input as the convolution sees it."""
        return x if self.act_quant is None else self.act_quant(x)

    def quantized_rows(self, rows: Tensor, positions: int) -> Tensor:
        """Return kept coefficients of a map, which has a number of positions, as they are
        multiplied.
        """
        if self.act_quant is None:
            return rows
        return quantize(rows, *self.act_quant.arguments(rows, positions))

    def dense(self, x: Tensor) -> Tensor:
        """Convolve a feature map and apply the activation."""
        y = F.conv2d(self.quantized(x), self.weight, self.bias, *self.geometry)
        if self.bounds is None:
            return self.activation(y)
        return y if self.bounds == (None, None) else y.clamp(*self.bounds)

    def from_coefficients(
        self, rows: Tensor, slot: Tensor, size, channels_last: bool, residual: Tensor | None = None
    ) -> Tensor:
        """Convolve kept coefficients, transform back, add the residual and apply the activation."""
        rows = multiply_rows(self.quantized_rows(rows, slot.shape[1]), self.weight)
        bounds = self.bounds or (None, None)
        y = kernels.haar_unpack(
            rows, slot, self.bias, *size, self.levels, channels_last, residual, *bounds
        )
        return y if self.bounds else self.activation(y)

    @one_call
    def forward(self, x: Tensor) -> Tensor:
        """Apply convolution, normalization and activation to a feature map (B, C, H, W)."""
        if not self.compressed:
            return self.dense(x)
        rows, slot = pack(
            x, keep_ratio=self.packed_ratio, levels=self.levels, selection=self.selection
        )
        return self.from_coefficients(rows, slot, x.shape[2:], kernels.is_channels_last(x))

    def extra_repr(self) -> str:
        return (
            f'{self.weight.shape[1] * self.geometry.groups}, {self.weight.shape[0]}, '
            f'kernel_size={tuple(self.weight.shape[2:])}, stride={self.geometry.stride}'
            + (f', keep_ratio={self.keep_ratio:g}, levels={self.levels}' if self.compressed else '')
        )


class FusedInvertedResidual(nn.Module):
    """A 1x1, a depthwise and a 1x1 convolution in few passes over memory, for inference.

    The depthwise convolution can be fused with the wavelet transform after it. This needs a last
    convolution that selects by energy, and a depthwise one with stride 1 and followed by a clamp
    (ReLU, ReLU6, Hardtanh or nothing). The widest feature map is then read only once and its
    filtered form is never stored: the fused operator outputs wavelet coefficients with their norms.
    Otherwise the depthwise convolution runs on its own. Normalization is folded into the weights.
    Bias, clamp and residual are applied while a feature map is written.

    Args:
        expand: The first 1x1 convolution, or None if the block begins with the depthwise one.
        depthwise: The depthwise convolution.
        project: The last 1x1 convolution.
        residual: Whether to add the input to the output. Defaults to False.

    Shape:
        (B, C, H, W) to (B, O, H / stride, W / stride), any H and W, in the memory format of the
        input.

    Raises:
        ValueError: If depthwise is not a depthwise convolution, or if expand or project is not 1x1
            with one group.

    Note:
        The weights are buffers, so the block cannot be trained.
        :func:`mmwcc.inference.fuse_inverted_residuals` builds it.

    Example:
        >>> expand = WaveletCompressedConv2d(8, 16, keep_ratio=0.5)
        >>> depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        >>> project = WaveletCompressedConv2d(16, 8, keep_ratio=0.5)
        >>> block = FusedInvertedResidual(
        ...     FoldedConv(expand, activation=nn.ReLU6()),
        ...     FoldedConv(depthwise, activation=nn.ReLU6()),
        ...     FoldedConv(project),
        ...     residual=True,
        ... )
        >>> block(torch.rand(1, 8, 20, 30)).shape
        torch.Size([1, 8, 20, 30])

    Reference:
        Finder et al., NeurIPS 2022, section 4; Sandler et al., MobileNetV2, CVPR 2018.
    """

    def __init__(
        self,
        expand: FoldedConv | None,
        depthwise: FoldedConv,
        project: FoldedConv,
        residual: bool = False,
    ) -> None:
        super().__init__()
        for role, conv in (('expand', expand), ('project', project)):
            if conv is not None and (conv.weight.shape[2:] != (1, 1) or conv.geometry.groups != 1):
                raise ValueError(
                    f'FusedInvertedResidual: {role} must be a 1x1 convolution of one group, got '
                    f'{conv}. Leave other blocks as they are.'
                )
        if depthwise.weight.shape[:2] != (depthwise.geometry.groups, 1):
            raise ValueError(
                'FusedInvertedResidual: depthwise must have one kernel a channel, got '
                f'{depthwise}. Leave other blocks as they are.'
            )
        self.expand, self.depthwise, self.project = expand, depthwise, project
        self.residual = residual

    @property
    def fuses_depthwise(self) -> bool:
        """Whether depthwise convolution and wavelet transform are one operator."""
        height, width = self.depthwise.weight.shape[2:]
        stride, padding, dilation, _ = self.depthwise.geometry
        same = padding in ('same', (dilation[0] * (height // 2),) * 2)
        return (
            self.project.compressed
            and self.project.selection == 'energy'
            and self.depthwise.bounds is not None
            and stride == (1, 1)
            and dilation[0] == dilation[1]
            and height == width
            and height % 2 == 1
            and same
        )

    def _kept(self, x: Tensor) -> tuple[Tensor, Tensor, torch.Size]:
        """Filter the expanded feature map; return the kept rows, their slots and the size.

        Rebinding ``x`` frees each feature map as soon as the next step has read it.
        """
        if self.expand is not None:
            x = self.expand(x)
        conv, bounds = self.project, self.depthwise.bounds
        if bounds is None or not self.fuses_depthwise:
            x = self.depthwise(x)
            rows, slot = pack(
                x, keep_ratio=conv.packed_ratio, levels=conv.levels, selection=conv.selection
            )
            return rows, slot, x.shape[2:]
        size, x = x.shape[2:], self.depthwise.quantized(x)
        x, norms = kernels.depthwise_haar(
            x,
            self.depthwise.weight,
            self.depthwise.bias,
            conv.levels,
            self.depthwise.geometry.dilation[0],
            *bounds,
        )
        k = kept_positions(norms.shape[1], conv.packed_ratio)
        slot = kernels.select(norms, k)
        return kernels.gather_rows(x, slot, k), slot, size

    @one_call
    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to a feature map (B, C, H, W)."""
        residual = x if self.residual else None
        if self.project.compressed:
            channels_last = kernels.is_channels_last(x)
            return self.project.from_coefficients(*self._kept(x), channels_last, residual)
        y = self.project(self.depthwise(x if self.expand is None else self.expand(x)))
        return y if residual is None else y + residual

    def extra_repr(self) -> str:
        return f'residual={self.residual}'
