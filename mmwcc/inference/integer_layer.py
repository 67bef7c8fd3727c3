"""The bases of integer convolutions: their weights, scales and grid, and their conversion."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.utils import _pair

from mmwcc import kernels
from mmwcc.functional import QuantizationSpec, energy_int8
from mmwcc.layers import CompressedLayer, CompressedLayerMixin, is_eligible
from mmwcc.model_tree import LayerState, width_obstacle

from .exact_buffers import ExactBuffers
from .integer_levels import act_grid, integer_weight
from .quantized_map import dequantized

__all__ = ['IntegerLayer', 'PointwiseIntegerLayer']


class IntegerLayer(CompressedLayer, ExactBuffers, ABC):
    """Base class of integer convolutions, with their weights, scales and grid.

    Args:
        channels: Channels of the input and of the output.
        bits: Bits of the weights and of the input, for reports.
        shape: Shape of the weight.
        bias: Whether there is a bias.
        geometry: Kernel size, stride, padding and dilation, a pair each.
        groups: Groups of channels. Defaults to 1.
    """

    weight: Tensor
    scale: Tensor
    step: Tensor
    grid: Tensor
    bias: Tensor | None

    def __init__(
        self,
        channels: tuple[int, int],
        bits: tuple[int, float],
        shape: tuple[int, ...],
        bias: bool,
        geometry: tuple,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = channels
        self.weight_bits, self.act_bits = bits
        self.kernel_size, self.stride, self.padding, self.dilation = geometry
        self.groups = groups
        self.register_buffer('weight', torch.zeros(shape, dtype=torch.int8))
        self.register_buffer('scale', torch.ones(self.out_channels))
        self.register_buffer('step', torch.ones(()))
        self.register_buffer('grid', torch.zeros(2, dtype=torch.int16))
        self.register_buffer('bias', torch.zeros(self.out_channels) if bias else None)

    def _trained(self, layer: Any) -> tuple[Tensor, Tensor, int, int]:
        """Take over the weight and the grid of a trained layer.

        Returns:
            The step of the weight of each output channel (O,), float64, and the step, the lowest
            and the highest level of the input.
        """
        for role in layer.unlearned():
            raise RuntimeError(
                f'{type(self).__name__}: {role} must have learned its clip, got one that is not '
                'initialized. Load a compressed checkpoint, or train or calibrate the model first.'
            )
        levels, weight_step = integer_weight(type(self).__name__, layer)
        assert layer.act_quant is not None, 'obstacle() has found its bits'
        step, low, high = act_grid(layer.act_quant)
        self.to(layer.weight.device)
        self.weight.copy_(levels.view_as(self.weight))
        self.step.copy_(step)
        self.grid.copy_(torch.tensor([low, high]))
        return weight_step, step, low, high

    def _check_mode(self) -> None:
        if self.training and torch.is_grad_enabled():
            raise RuntimeError(
                f'{type(self).__name__}: integers have no gradient, got a call in training mode. '
                'Call model.eval(), or train the model before mmwcc.inference.to_integer.'
            )

    def _check_weights(self, low: int, high: int) -> None:
        if low == high:
            raise RuntimeError(
                f'{type(self).__name__}: the layer must have weights, got none so far. Load a '
                'checkpoint of an integer model (tools/deployment/to_integer.py writes them).'
            )

    @abstractmethod
    def forget(self) -> None:
        """Drop what was derived from the buffers, because they have changed."""

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.forget()


class PointwiseIntegerLayer(IntegerLayer):
    """Base class of integer layers that multiply rows of channels: 1x1 and linear ones."""

    _stands_for: type[CompressedLayerMixin]
    clips: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride,
        bias: bool,
        weight_bits: int,
        act_bits: float,
        widths: Sequence[int] | None,
    ) -> None:
        super().__init__(
            (in_channels, out_channels),
            (weight_bits, act_bits),
            (out_channels, in_channels),
            bias,
            ((1, 1), _pair(stride), (0, 0), (1, 1)),
        )
        self.position_widths = None if widths is None else tuple(widths)
        clips = None if widths is None else torch.ones(len(kernels.WIDTHS))
        self.register_buffer('clips', clips)
        self._low = self._high = 0  # the values of `grid`, kept to read them only once

    @staticmethod
    def obstacle(layer: Any) -> str:
        """Return why a layer of the class that this one replaces cannot be converted, or ''."""
        if not is_eligible(layer.kernel_size, layer.padding, layer.groups):
            return 'not a 1x1 convolution without padding and groups'
        return width_obstacle(layer)

    @classmethod
    def like(cls, layer: Any):
        """Build the integer form of ``layer`` without weights, which a checkpoint can then fill.

        Raises:
            TypeError: If the layer is not of the class that this one replaces.
            ValueError: If the layer has no integer form.
        """
        name, kind = cls.__name__, cls._stands_for
        if type(layer) is not kind:
            raise TypeError(
                f'{name}: layer must be a {kind.__name__}, got a {type(layer).__name__}. Use '
                'mmwcc.inference.to_integer, which chooses.'
            )
        obstacle = cls.obstacle(layer)
        if obstacle:
            raise ValueError(
                f'{name}: layer must multiply positions, with weights and activations of 8 bits or '
                f'fewer, got {obstacle}. Use mmwcc.inference.to_integer, which leaves such '
                'layers.'
            )
        state = LayerState.of(layer)
        return cls(
            **cls._settings(layer),
            weight_bits=state.weight_bits,
            act_bits=state.act_bits,
            widths=state.widths,
        )

    @classmethod
    def from_layer(cls, layer: Any):
        """Convert a trained layer. The result has its device and mode.

        Raises:
            TypeError: If the layer is not of the class that this one replaces.
            ValueError: If the layer has no integer form, or one of its weights is NaN.
            RuntimeError: If one of its quantizers has not learned its clip.
        """
        integer = cls.like(layer)
        integer._take(layer)
        return integer.train(layer.training)

    @property
    def _by_energy(self) -> bool:
        """Whether each row has a scale of its own."""
        return self.clips is not None

    @classmethod
    def _settings(cls, layer: Any) -> dict[str, Any]:
        """Return the constructor arguments for ``layer``, without bits."""
        return dict(
            in_channels=layer.in_channels, out_channels=layer.out_channels, stride=layer.stride
        )

    @torch.no_grad()
    def _take(self, layer: Any) -> None:
        """Take over weights, scales, grid and bias of a trained layer."""
        weight_step, step, low, high = self._trained(layer)
        if self.clips is not None:
            assert layer.act_quant is not None, 'it has the clips'
            self.clips.copy_(layer.act_quant.clip_alpha)
        scale = step.double().to(weight_step.device) * weight_step
        self.scale.copy_(scale)
        if self.bias is not None:
            shift = 0 if layer.bias is None else layer.bias.double()
            # Unsigned levels are stored 128 lower. The bias makes up for that where it can.
            if high > 127 and self.clips is None:
                shift = shift + 128 * scale * self.weight.double().sum(1)
            self.bias.copy_(shift + torch.zeros_like(scale))
        self._low, self._high = low, high

    def _spec(self, positions: int) -> QuantizationSpec:
        """Describe the grids of rows that have a scale each, out of as many positions."""
        widths = self.position_widths or (int(self.act_bits),)
        return QuantizationSpec(
            widths[-1],
            symmetric=self._low == -self._high,
            widths=widths,
            mean_bits=float(self.act_bits),
            positions=positions,
        )

    def _rounded_by_energy(self, rows: Tensor, positions: int) -> tuple[Tensor, Tensor]:
        """Return the levels of rows and the step of each, see :func:`energy_int8`."""
        assert self.clips is not None, 'only rows with a scale each'
        return energy_int8(rows, self.clips, self.grid[0] < 0, self._spec(positions))

    def _multiplied(self, rows: Tensor, bias: Tensor | None, positions: int) -> Tensor:
        """Round rows (B, k, C), which are some of as many positions, and multiply them."""
        if self.clips is None:
            levels = kernels.quantize_int8(
                rows.transpose(1, 2).unsqueeze(3), self.step, self._low, self._high
            )
            return kernels.int8_linear(levels, self.weight, self.scale, bias, dtype=rows.dtype)
        levels, steps = self._rounded_by_energy(rows, positions)
        # Unsigned levels are stored 128 lower.
        offset = None if self._low < 0 else 128 * self.weight.sum(1, dtype=torch.int32)
        return kernels.int8_linear(levels, self.weight, self.scale, bias, steps, offset, rows.dtype)

    def _check_state(self) -> None:
        self._check_mode()
        self._check_weights(self._low, self._high)

    def _integer_input(self, x: Tensor) -> Tensor:
        """Check state and shape, and return the input as a batch, subsampled by the stride."""
        self._check_state()
        batch = self._batched(dequantized(x))
        return batch if self.stride == (1, 1) else batch[:, :, :: self.stride[0], :: self.stride[1]]

    def forget(self) -> None:
        if not self.grid.is_meta:
            self._low, self._high = self.grid.tolist()

    def extra_repr(self) -> str:
        stride = '' if self.stride == (1, 1) else f', stride={self.stride}'
        return (
            f'{self.in_channels}, {self.out_channels}{stride}, bias={self.bias is not None}, '
            f'grid={self._low}...{self._high}'
        )
