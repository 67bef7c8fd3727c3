"""Quantized convolutions of any geometry that read and write 8-bit maps."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmwcc import kernels
from mmwcc.layers import CompressedLayer, QuantConv2d
from mmwcc.maps import FUSED
from mmwcc.model_tree import FULL_PRECISION, LayerState

from .fold import scale_and_bias
from .integer_conv import act_grid, integer_weight
from .quantized_map import Grid, QuantizedMap

__all__ = ['IntegerMapConv2d', 'map_obstacle']

_ACTIVATIONS = ('', *sorted(FUSED))


def map_obstacle(layer: nn.Module) -> str:
    """Return why a layer cannot read 8-bit maps, or ''."""
    if type(layer) is not QuantConv2d:
        return 'not a quantized convolution'
    state = LayerState.of(layer)
    for bits, what in ((state.weight_bits, 'weights'), (state.act_bits, 'activations')):
        if bits > 8:
            return f'{what} not quantized' if bits == FULL_PRECISION else f'{what} of {bits} bits'
    if layer.padding_mode != 'zeros' or isinstance(layer.padding, str):
        return f'padding {layer.padding_mode!r}'
    return ''


class IntegerMapConv2d(CompressedLayer, nn.Module):
    """A quantized convolution in integers, with BatchNorm and activation, from map to map.

    It computes ``act(scale * sum(q(x) * weight) + bias)``, exactly in int32 up to the scale, and
    rounds the result to the grid of its output.

    Shape:
        (B, in_channels, H, W) to (B, out_channels, H', W'), channels_last.
    """

    def __init__(self, layer: nn.Conv2d, name: str, chain: list[str], grids: dict) -> None:
        super().__init__()
        self.in_channels, self.out_channels = layer.in_channels, layer.out_channels
        self.kernel_size, self.stride, self.padding = layer.kernel_size, layer.stride, layer.padding
        self.dilation, self.groups = layer.dilation, layer.groups
        self.name, self.chain, self.grids = name, chain, grids
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        self.register_buffer('weight', torch.zeros(shape, dtype=torch.int8))
        self.register_buffer('scale', torch.ones(self.out_channels))
        self.register_buffer('bias', torch.zeros(self.out_channels))
        self.reads: Grid = Grid(1.0, 0, 255)
        self.writes: Grid | None = None
        self.activation = ''
        self._packed: Any = None

    @torch.no_grad()
    def take(self, layer: QuantConv2d, norm: nn.Module | None) -> None:
        """Take over the weights of a trained layer and of the BatchNorm after it."""
        levels, step = integer_weight(type(self).__name__, layer)
        factor, bias = scale_and_bias(layer, norm, torch.float64)
        self.weight.copy_(levels.view_as(self.weight))
        self.scale.copy_(step * factor)
        if bias is not None:
            self.bias.copy_(bias)
        step, low, high = act_grid(layer.act_quant)
        self.reads = Grid(step.item(), low, high)

    def forward(self, x: Tensor) -> Tensor:
        levels = x.on(self.reads) if isinstance(x, QuantizedMap) else self.reads.bytes_of(x)
        levels = levels.contiguous(memory_format=torch.channels_last)
        if self._packed is None:
            self._packed = torch.ops.onednn.qconv_prepack(
                self.weight, self.scale, self.reads.step, self.reads.zero,
                self.stride, self.padding, self.dilation, self.groups, list(levels.shape),
            )
            self._zeros = torch.zeros(self.out_channels, dtype=torch.int32)
        post = {
            '': ('none', []), 'relu': ('relu', []), 'relu6': ('hardtanh', [0.0, 6.0]),
            'hardswish': ('hardswish', []), 'silu': ('swish', []),
        }[self.activation]
        out = self.writes
        y = torch.ops.onednn.qconv2d_pointwise(
            levels, self.reads.step, self.reads.zero, self._packed, self.scale, self._zeros, self.bias,
            self.stride, self.padding, self.dilation, self.groups,
            1.0 if out is None else out.step, 0 if out is None else out.zero,
            torch.float32 if out is None else torch.uint8, *post, '',
        )
        if out is None:
            return y
        if (out.low + out.zero, out.high + out.zero) != (0, 255):
            y.clamp_(out.low + out.zero, out.high + out.zero)
        return QuantizedMap(y, out, self.chain[-1], self.grids, self.activation)
