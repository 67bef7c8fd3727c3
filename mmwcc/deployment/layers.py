"""Compressed layers in a form that exporters support: constants folded, ONNX operators only."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmwcc.functional import kept_positions
from mmwcc.inference import act_grid, integer_weight, scale_and_bias, scale_channels
from mmwcc.kernels import coarse_rank, padded_size
from mmwcc.layers import QuantConv2d, WaveletCompressedConv2d
from mmwcc.quantizers import UniformQuantizer

from .operators import dequantize_linear, quantize_linear
from .targets import TARGETS, Target
from .transforms import build_transform

__all__ = ['ExportableConv2d', 'ExportableWaveletConv2d', 'QuantizedValues', 'is_integer']

_WIDEST = 8
_LARGEST_BIAS = 2**30  # in int32, with room for the sum of the products


def is_integer(quantizer: UniformQuantizer | None) -> bool:
    """Tell whether a quantizer, with 8 bits or fewer, fits QuantizeLinear and DequantizeLinear."""
    return quantizer is not None and quantizer.bits <= _WIDEST


class QuantizedValues(nn.Module):
    """Round to the grid of an activation quantizer.

    The operators are QuantizeLinear and DequantizeLinear, after a Clip if the grid has fewer levels
    than 8 bits; or Clip and Round.

    Args:
        quantizer: A quantizer that has learned its clip.
        target: The runtime that QuantizeLinear is written for, or None to write Round.
    """

    step: Tensor

    def __init__(self, quantizer: UniformQuantizer, target: Target | None) -> None:
        super().__init__()
        step, self.low, self.high = act_grid(quantizer)
        self.register_buffer('step', step)
        self.integer = target is not None and is_integer(quantizer)
        negative = self.low < 0
        self.signed = target is not None and negative and target.signed
        self.zero = 128 if negative and not self.signed else 0
        # The 8 bits have one level more than a symmetric grid, and many more than a grid with fewer
        # bits.
        self.clips = (self.low, self.high) != ((-128, 127) if negative else (0, 255))
        self.bounds = (self.low * step).item(), (self.high * step).item()

    def forward(self, x: Tensor) -> Tensor:
        if not self.integer:
            return (x / self.step).clamp(self.low, self.high).round() * self.step
        x = x.clamp(*self.bounds) if self.clips else x
        levels = quantize_linear(x, self.step, self.zero, self.signed)
        return dequantize_linear(levels, self.step, self.zero)


class _Folded(nn.Module):
    """The constants of a convolution, with the batch normalization after it folded in.

    These are the rounded weight, the scale by which it is multiplied, and a bias.

    Args:
        conv: A compressed convolution.
        norm: The batch normalization after it, or None.
        target: The runtime for which quantizers of 8 bits or fewer are written as QuantizeLinear
            and DequantizeLinear, or None to write Round.
    """

    weight: Tensor
    scale: Tensor | None
    bias: Tensor | None
    bias_scale: Tensor | None

    def __init__(
        self,
        conv: QuantConv2d | WaveletCompressedConv2d,
        norm: _BatchNorm | None,
        target: Target | None,
    ) -> None:
        super().__init__()
        self.stride = conv.stride
        factor, bias = scale_and_bias(conv, norm, torch.float64)
        self.act_quant: Any = None
        if conv.act_quant is not None and conv.act_quant.is_on:
            self.act_quant = QuantizedValues(conv.act_quant, target)
        scale = bias_scale = None
        if target is not None and is_integer(conv.weight_quant):
            levels, step = integer_weight(type(conv).__name__, conv)
            levels, scale = _positive(levels, step * factor)
            if bias is not None and self._bias_in_steps(conv, target):
                levels, scale = _with_room(levels, scale, bias, self.act_quant.step)
                bias_scale = scale.float() * self.act_quant.step
                bias = (bias.double() / bias_scale).round().int()
        else:
            rounded = conv.rounded_weight()
            levels = scale_channels(rounded, factor.to(rounded.dtype))
        weight = self._arrange(levels.reshape(conv.weight.shape))
        self.register_buffer('weight', weight.contiguous())
        self.register_buffer('scale', None if scale is None else scale.float())
        if bias is not None and bias_scale is None:
            bias = bias.float()
        self.register_buffer('bias', bias)
        self.register_buffer('bias_scale', bias_scale)

    def _bias_in_steps(self, conv: Any, target: Target) -> bool:
        """Tell whether the bias is int32, in steps of the input times steps of the weight."""
        return False

    _axis = 0

    def _arrange(self, weight: Tensor) -> Tensor:
        """Return the weight as the product expects it, with output channels along ``_axis``."""
        return weight

    def _float_weight(self) -> Tensor:
        return (
            self.weight
            if self.scale is None
            else dequantize_linear(self.weight, self.scale, axis=self._axis)
        )


def _positive(levels: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Move the signs of scales into the integer weights, for runtimes that need positive scales."""
    # The lowest int8 value has no positive counterpart.
    lowest = levels.min(dim=1).values == torch.iinfo(torch.int8).min
    sign = torch.where(lowest, 1, scale.sign()).to(torch.int8)
    return levels * sign.unsqueeze(1), torch.where(scale == 0, 1, scale * sign)


def _with_room(levels: Tensor, scale: Tensor, bias: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Make scales large enough for the bias to be an int32 in steps of input times weight.

    Only channels whose weights are next to nothing beside their bias change, by less than float32
    resolves in the bias.
    """
    needed = torch.maximum(scale, bias.abs() / (step.double() * _LARGEST_BIAS))
    levels = (levels * (scale / needed).unsqueeze(1)).round().to(torch.int8)
    return levels, needed


class ExportableConv2d(_Folded):
    """A :class:`~mmwcc.layers.QuantConv2d` and the batch normalization after it, for export.

    Args:
        conv: The trained layer.
        norm: The batch normalization after it. Defaults to None.
        target: The runtime for which quantizers of 8 bits or fewer are written as QuantizeLinear
            and DequantizeLinear, or None to write Round. Defaults to ONNX Runtime.
    """

    def __init__(
        self,
        conv: QuantConv2d,
        norm: _BatchNorm | None = None,
        target: Target | None = TARGETS['onnxruntime'],
    ) -> None:
        super().__init__(conv, norm, target)
        self.dilation, self.groups = conv.dilation, conv.groups
        self.padding: tuple[int, ...] = (0, 0)
        self.pad: tuple[list[int], str] | None = None  # padding that is an operator of its own
        if conv.padding_mode == 'zeros' and not isinstance(conv.padding, str):
            self.padding = conv.padding
        else:
            mode = 'constant' if conv.padding_mode == 'zeros' else conv.padding_mode
            self.pad = conv._reversed_padding_repeated_twice, mode

    def _bias_in_steps(self, conv: Any, target: Target) -> bool:
        if not target.integer_bias or self.act_quant is None:
            return False
        # Steps of fewer bits are too coarse for a bias.
        return conv.weight_quant.bits == conv.act_quant.bits == _WIDEST

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the layer and the normalization for a map (B, C, H, W)."""
        x = x if self.pad is None else F.pad(x, self.pad[0], mode=self.pad[1])
        x = x if self.act_quant is None else self.act_quant(x)
        bias = self.bias
        if bias is not None and self.bias_scale is not None:
            bias = dequantize_linear(bias, self.bias_scale)
        return F.conv2d(
            x,
            self._float_weight(),
            bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )


class _Size(NamedTuple):
    """The size of a map; symbolic if it stays open in the export."""

    height: int
    width: int

    @property
    def positions(self) -> int:
        return self.height * self.width


class ExportableWaveletConv2d(_Folded):
    """A :class:`~mmwcc.layers.WaveletCompressedConv2d` with its batch normalization, for export.

    By default, TopK finds the positions with the largest energy, with a k that depends on the size
    of the map. If a threshold is set, all positions whose energy reaches it are kept instead. Kept
    rows are gathered, multiplied and scattered. With a threshold, or with ``selection='coarse'``,
    the other rows are multiplied by zero instead.

    Args:
        conv: The trained layer.
        norm: The batch normalization after it. Defaults to None.
        target: The runtime for which quantizers of 8 bits or fewer are written as QuantizeLinear
            and DequantizeLinear, or None to write Round. Defaults to ONNX Runtime.
        dynamic: Whether height and width stay open. Defaults to True.

    Attributes:
        threshold: Squared norm from which a position is kept, or None for the k largest.
    """

    _axis = 1

    def __init__(
        self,
        conv: WaveletCompressedConv2d,
        norm: _BatchNorm | None = None,
        target: Target | None = TARGETS['onnxruntime'],
        dynamic: bool = True,
    ) -> None:
        super().__init__(conv, norm, target)
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        self.keep_ratio, self.selection, self.levels = conv.keep_ratio, conv.selection, conv.levels
        self.dynamic = dynamic
        self.threshold: float | None = None
        self.transform = build_transform(conv.wavelet, conv.levels)

    def _arrange(self, weight: Tensor) -> Tensor:
        return weight.flatten(1).t()

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the layer and the normalization for a map (B, C, H, W)."""
        batch, image, padded = self._sizes(x)
        rows = self.coefficients(x)
        if self.keep_ratio == 1:
            rows = self._multiply(rows)
        elif self.threshold is not None or self.selection == 'coarse':
            rows = self._multiply(rows * self._mask(rows, padded).to(rows.dtype).unsqueeze(2))
        else:
            rows = self._multiply_largest(rows, batch, padded.positions)
        y = self.transform.synthesis(rows, batch, self.out_channels, *padded)
        y = y if not self.dynamic and image == padded else y[:, : image.height, : image.width]
        return (y if self.bias is None else y + self.bias).permute(0, 3, 1, 2)

    def coefficients(self, x: Tensor) -> Tensor:
        """Return all wavelet coefficients of a map, shape (B, N, C)."""
        batch, image, padded = self._sizes(x)
        if self.stride != (1, 1):
            x = x[:, :, :: self.stride[0], :: self.stride[1]]
        if self.dynamic or image != padded:
            x = F.pad(x, (0, padded.width - image.width, 0, padded.height - image.height))
        return self.transform.analysis(x, batch, self.in_channels)

    @staticmethod
    def energies(rows: Tensor) -> Tensor:
        """Return the squared norm over channels of each row of coefficients, shape (B, N)."""
        return rows.square().sum(2)

    def _sizes(self, x: Tensor) -> tuple[int, _Size, _Size]:
        """Return the batch size, the size of the subsampled map, and its padded size."""
        (height, width), (down, across) = x.shape[2:], self.stride
        if not self.dynamic:
            height, width = int(height), int(width)
        image = _Size((height + down - 1) // down, (width + across - 1) // across)
        padded = _Size(*(padded_size(side, self.levels) for side in image))
        return int(x.shape[0]), image, padded

    def _mask(self, rows: Tensor, padded: _Size) -> Tensor:
        if self.threshold is not None:
            return self.energies(rows) >= self.threshold
        rank = coarse_rank(*padded, self.levels, rows.device).unsqueeze(0)
        return self.transform.by_row(rank) < kept_positions(padded.positions, self.keep_ratio)

    def _multiply_largest(self, rows: Tensor, batch: int, positions) -> Tensor:
        energies = self.transform.by_position(self.energies(rows))
        k = kept_positions(positions, self.keep_ratio)
        # Among equal values TopK takes the lower index, as the layer does. This is why the order of
        # positions matters.
        index = self.transform.row_of(energies.topk(k, dim=1, sorted=False).indices, positions)
        index = (index + torch.arange(batch, device=rows.device).unsqueeze(1) * positions).flatten()
        kept = self._multiply(rows.reshape(-1, self.in_channels).index_select(0, index))
        # Use one column, because exporters store zeros of a known shape: 68 of the 73 MB of a
        # DeepLabV3+ at 256x512.
        y = (
            kept.new_zeros(batch * positions, 1)
            .expand(-1, self.out_channels)
            .index_put((index,), kept)
        )
        return y.reshape(batch, positions, self.out_channels)

    def _multiply(self, rows: Tensor) -> Tensor:
        return (rows if self.act_quant is None else self.act_quant(rows)) @ self._float_weight()
