"""Quantized convolutions of any geometry that read and write 8-bit maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmwcc import kernels
from mmwcc.layers import QuantConv2d
from mmwcc.model_tree import LayerState

from .fold import scale_and_bias
from .integer_layer import IntegerLayer
from .map_grids import MapGrids
from .quantized_map import Grid, QuantizedMap

__all__ = ['IntegerMapConv2d']


class IntegerMapConv2d(IntegerLayer):
    """A quantized convolution in integers that reads and writes 8-bit maps, for inference.

    It computes ``act(step * scale * sum(x * weight) + bias)``, where ``x`` and ``weight`` are
    integers and the sum is exact, and rounds to the grid of the map that it writes. BatchNorm is in
    scale and bias. The activation is the one that alone reads the layer's map in the network.

    Args:
        layer: The trained layer, of which the geometry is taken.
        name: Its name in the network.
        maps: The grids of the network's maps.

    Shape:
        (B, in_channels, H, W) to (B, out_channels, H', W'), with or without B, stored
        channels_last. The input is a :class:`QuantizedMap`, or a tensor, which is rounded first.
        The output is a :class:`QuantizedMap` if it is read in integers, and a float32 tensor
        otherwise.

    Raises:
        RuntimeError: If it is called without weights, or in training mode with gradients enabled.

    Note:
        Traces hold plain tensors only. While torch.jit traces, maps between layers are therefore
        float32, and each layer rounds its own input.
    """

    bias: Tensor

    def __init__(self, layer: QuantConv2d, name: str, maps: MapGrids) -> None:
        state = LayerState.of(layer)
        super().__init__(
            (layer.in_channels, layer.out_channels),
            (state.weight_bits, state.act_bits),
            tuple(layer.weight.shape),
            True,
            (layer.kernel_size, layer.stride, layer.padding, layer.dilation),
            layer.groups,
        )
        self._name, self._maps = name, (maps,)  # in a tuple, so that it is no part of this layer
        self._reads: Grid | None = None
        self._packed: Any = None

    @torch.no_grad()
    def take(self, layer: QuantConv2d, norm: Any) -> None:
        """Take over the weights of a trained layer and of the BatchNorm that is folded into it.

        Raises:
            RuntimeError: If one of its quantizers has not learned its clip.
            ValueError: If a weight is NaN.
        """
        weight_step, *_ = self._trained(layer)
        factor, bias = scale_and_bias(layer, norm, torch.float64)
        self.scale.copy_(weight_step * factor)
        self.bias.copy_(torch.zeros_like(factor) if bias is None else bias)
        self.forget()

    @property
    def reads(self) -> Grid:
        """The grid of the input."""
        if self._reads is None:
            low, high = self.grid.tolist()
            self._check_weights(low, high)
            self._reads = Grid(self.step.item(), low, high)
        return self._reads

    def forward(self, x: Tensor) -> Tensor:
        self._check_mode()
        y = self._convolve(self._levels(self._batched(x)))
        return y if x.dim() == 4 else y.squeeze(0)

    def _levels(self, batch: Tensor) -> Tensor:
        """Return the bytes of the input on the layer's grid."""
        reads = self.reads
        return batch.on(reads) if isinstance(batch, QuantizedMap) else reads.bytes_of(batch)

    def _convolve(self, levels: Tensor) -> Tensor:
        packed = self._constants()
        if torch.jit.is_tracing():
            return kernels.int8_conv2d(levels, packed)
        maps = self._maps[0].stored
        written = maps.get(self._name)
        if written is None:
            activation = self._maps[0].plan.activation(self._name)
            y = kernels.int8_conv2d(levels, packed, activation)
            return QuantizedMap(y, None, pending=activation) if activation else y
        y = kernels.int8_conv2d(levels, packed, written.activation, written.grid.bytes)
        return QuantizedMap(y, written.grid, written.name, maps, written.activation)

    def _constants(self) -> Any:
        """Return the constants of the kernel, which are made once."""
        if self._packed is not None:
            return self._packed
        geometry = (self.stride, self.padding, self.dilation, self.groups)
        packed = kernels.pack_int8_conv(
            self.weight, self.scale, self.bias, self.reads.step, self.reads.zero, geometry
        )
        if not torch.jit.is_tracing():  # a trace holds no layout of oneDNN
            self._packed = packed
        return packed

    def _apply(self, fn, recurse: bool = True):
        super()._apply(fn, recurse)
        self.forget()
        return self

    def forget(self) -> None:
        self._packed = self._reads = None
        self._maps[0].forget()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_packed': None}  # oneDNN's layout can be neither copied nor saved

    def extra_repr(self) -> str:
        return (
            f'{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, '
            f'stride={self.stride}, padding={self.padding}, dilation={self.dilation}, '
            f'groups={self.groups}'
        )
