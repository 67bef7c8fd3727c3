"""Quantized convolutions of any geometry that read and write 8-bit maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmwcc import kernels
from mmwcc.layers import CompressedConvMixin, CompressedLayer, QuantConv2d
from mmwcc.model_tree import LayerState

from .fold import scale_and_bias
from .integer_levels import act_grid, integer_weight
from .map_grids import MapGrids
from .quantized_map import Grid, QuantizedMap

__all__ = ['IntegerMapConv2d']


class IntegerMapConv2d(CompressedLayer, nn.Module):
    """A quantized convolution in integers that reads and writes 8-bit maps, for inference.

    It computes ``act(scale * sum(x * weight) + bias)``, where ``x`` and ``weight`` are integers and
    the sum is exact, and rounds to the grid of the map that it writes. BatchNorm is in scale and
    bias. The activation is the one that alone reads the layer's map in the network.

    Args:
        layer: The trained layer, of which the geometry is taken.
        name: Its name in the network.
        maps: The grids of the network's maps.

    Shape:
        (B, in_channels, H, W) to (B, out_channels, H', W'), stored channels_last. The input is a
        :class:`QuantizedMap`, or a tensor, which is rounded first. The output is a
        :class:`QuantizedMap` if it is read in integers, and a float32 tensor otherwise.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor
    step: Tensor
    grid: Tensor

    def __init__(self, layer: QuantConv2d, name: str, maps: MapGrids) -> None:
        super().__init__()
        self.in_channels, self.out_channels = layer.in_channels, layer.out_channels
        self.kernel_size, self.stride = layer.kernel_size, layer.stride
        self.padding, self.dilation = layer.padding, layer.dilation
        self.groups = layer.groups
        state = LayerState.of(layer)
        self.weight_bits, self.act_bits = state.weight_bits, state.act_bits
        self.register_buffer('weight', torch.zeros(layer.weight.shape, dtype=torch.int8))
        self.register_buffer('scale', torch.ones(self.out_channels))
        self.register_buffer('bias', torch.zeros(self.out_channels))
        self.register_buffer('step', torch.ones(()))
        self.register_buffer('grid', torch.zeros(2, dtype=torch.int16))
        self._name, self._maps = name, (maps,)  # in a tuple, so that it is no part of this layer
        self._reads: Grid | None = None
        self._packed: Any = None

    @torch.no_grad()
    def take(self, layer: QuantConv2d, norm: nn.Module | None) -> None:
        """Take over the weights of a trained layer and of the BatchNorm that is folded into it.

        Raises:
            ValueError: If a weight is NaN.
            RuntimeError: If one of its quantizers has not learned its clip.
        """
        for role in layer.unlearned():
            raise RuntimeError(
                f'{type(self).__name__}: {role} must have learned its clip, got one that is not '
                'initialized. Load a compressed checkpoint, or train or calibrate the model first.'
            )
        levels, weight_step = integer_weight(type(self).__name__, layer)
        factor, bias = scale_and_bias(layer, norm, torch.float64)
        assert layer.act_quant is not None, 'map_obstacle() has found its bits'
        step, low, high = act_grid(layer.act_quant)
        self.to(layer.weight.device)
        self.weight.copy_(levels.view_as(self.weight))
        self.scale.copy_(weight_step * factor)
        self.bias.copy_(torch.zeros_like(factor) if bias is None else bias)
        self.step.copy_(step)
        self.grid.copy_(torch.tensor([low, high]))
        self._reads = None

    @property
    def reads(self) -> Grid:
        """The grid of the input."""
        if self._reads is None:
            low, high = self.grid.tolist()
            if low == high:
                raise RuntimeError(
                    f'{type(self).__name__}: the layer must have weights, got none so far in '
                    f'{self._name}. Load a checkpoint of an integer model '
                    '(tools/deployment/to_integer.py writes them).'
                )
            self._reads = Grid(self.step.item(), low, high)
        return self._reads

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            raise RuntimeError(
                f'{type(self).__name__}: integers have no gradient, got a call in training mode. '
                'Call model.eval(), or train the model before mmwcc.inference.to_integer.'
            )
        maps = self._maps[0].stored
        batch = self._batched(x)
        levels = batch.on(self.reads) if isinstance(batch, QuantizedMap) else None
        levels = self.reads.bytes_of(batch) if levels is None else levels
        written = maps.get(self._name)
        if self._packed is None:
            self._packed = kernels.pack_int8_conv(
                self.weight,
                self.scale,
                self.bias,
                self.reads.step,
                self.reads.zero,
                (self.stride, self.padding, self.dilation, self.groups),
            )
        if written is None:
            return kernels.int8_conv2d(levels, self._packed)
        y = kernels.int8_conv2d(levels, self._packed, written.activation, written.grid.bytes)
        return QuantizedMap(y, written.grid, written.name, maps, written.activation)

    def _apply(self, fn, recurse: bool = True):
        # .half() and the like must not reach the buffers: a rounded step would change the levels.
        exact = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in exact.items():
            moved = self._buffers[name]
            if buffer is not None and moved is not None and moved.dtype != buffer.dtype:
                self._buffers[name] = buffer.to(moved.device)
        self._forget()
        return self

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._forget()

    def _forget(self) -> None:
        """Drop what was derived from the buffers."""
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
