"""Integer forms of trained quantized 1x1 convolutions: int8 inputs times int8 weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from mmwcc import kernels
from mmwcc.functional import check_compression, normalization, one_call, pack_int8, quantize, unpack
from mmwcc.kernels.fake_quant import grid
from mmwcc.layers import (
    CompressedConvMixin,
    CompressedLayer,
    QuantConv2d,
    WaveletCompressedConv2d,
    is_eligible,
)
from mmwcc.model_tree import FULL_PRECISION, LayerState
from mmwcc.quantizers import UniformQuantizer
from mmwcc.registry import MODELS

__all__ = [
    'INTEGER_FORMS',
    'IntegerConv2d',
    'IntegerLayer',
    'IntegerWaveletCompressedConv2d',
    'act_grid',
    'integer_obstacle',
    'integer_weight',
]

_WIDEST = 8


def integer_obstacle(layer: nn.Module) -> str:
    """Return why ``layer`` has no integer form, or '' if it has one."""
    if type(layer) not in INTEGER_FORMS:
        return 'not a quantized convolution'
    if not is_eligible(layer.kernel_size, layer.padding, layer.groups):
        return 'not a 1x1 convolution without padding and groups'
    state = LayerState.of(layer)
    for bits, what in ((state.weight_bits, 'weights'), (state.act_bits, 'activations')):
        if bits > _WIDEST:
            return f'{what} not quantized' if bits == FULL_PRECISION else f'{what} of {bits} bits'
    return ''


def act_grid(quantizer: UniformQuantizer) -> tuple[Tensor, int, int]:
    """Return the step and the lowest and highest grid level of an activation quantizer."""
    spec = quantizer.spec(torch.zeros(1))
    step, low, high = grid(
        torch.float32, quantizer.clip_alpha.detach(), quantizer.signed, spec.bits, spec.symmetric
    )
    return step.reshape(()), int(low), int(high)


def integer_weight(owner: str, layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the weight of a quantized layer as int8 levels and the steps between levels.

    Args:
        owner: Name of the class that raises the error.
        layer: A layer whose weight has a quantizer.

    Returns:
        The grid levels (O, C), int8, and the step of each output channel (O,), float64.

    Raises:
        RuntimeError: If the clip of the quantizer cannot belong to the weight.
        ValueError: If a weight is NaN.
    """
    layer.require_fitting_clip()
    weight, quantizer = layer.weight.detach().float(), layer.weight_quant
    spec, clip = quantizer.spec(weight), quantizer.clip_alpha.detach().float()
    step = grid(torch.float32, clip, quantizer.signed, spec.bits, spec.symmetric)[0]
    step = spec.spread(step, weight).double()
    if spec.normalize == 'rescale':
        step = step * normalization(weight)[1].double()
    # The mean that normalization subtracts is never added back, so levels are integers * step.
    levels = (quantize(weight, clip, quantizer.signed, spec).double() / step).round()
    if levels.isnan().any():
        raise ValueError(
            f'{owner}: the weights must be numbers, got {int(levels.isnan().sum())} of {levels.numel()} '
            'that are NaN. Convert a checkpoint of a training that did not diverge.'
        )
    step = step.reshape(-1).expand(len(weight))
    if layer.weight_scale is not None:
        step = step * layer.weight_scale.double()
    return levels.to(torch.int8).flatten(1), step.clone()


class IntegerLayer(CompressedLayer, nn.Module):
    """Base class of integer 1x1 convolutions, with their weights, scales and grid."""

    _stands_for: type[nn.Module]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride,
        bias: bool,
        weight_bits: int,
        act_bits: int,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, _pair(stride)
        self.kernel_size, self.padding, self.dilation, self.groups = (1, 1), (0, 0), (1, 1), 1
        self.weight_bits, self.act_bits = weight_bits, act_bits
        self.register_buffer('weight', torch.zeros(out_channels, in_channels, dtype=torch.int8))
        self.register_buffer('scale', torch.ones(out_channels))
        self.register_buffer('step', torch.ones(()))
        self.register_buffer('grid', torch.zeros(2, dtype=torch.int16))
        self.register_buffer('bias', torch.zeros(out_channels) if bias else None)
        self._low = self._high = 0  # the values of `grid`, kept to read them only once

    @classmethod
    def like(cls, layer: nn.Module):
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
        obstacle = integer_obstacle(layer)
        if obstacle:
            raise ValueError(
                f'{name}: layer must be a 1x1 convolution with weights and activations of 8 bits or '
                f'fewer, got {obstacle}. Use mmwcc.inference.to_integer, which leaves such layers.'
            )
        state = LayerState.of(layer)
        return cls(
            layer.in_channels,
            layer.out_channels,
            layer.stride,
            **cls._settings(layer),
            weight_bits=state.weight_bits,
            act_bits=state.act_bits,
        )

    @classmethod
    def from_layer(cls, layer: nn.Module):
        """Convert a trained layer. The result has its device and mode.

        Raises:
            TypeError: If the layer is not of the class that this one replaces.
            ValueError: If the layer has no integer form, or one of its weights is NaN.
            RuntimeError: If one of its quantizers has not learned its clip.
        """
        integer = cls.like(layer)
        integer._take(layer)
        return integer.train(layer.training)

    @staticmethod
    def _settings(layer: nn.Module) -> dict:
        """Return the constructor arguments for ``layer`` that only this class has."""
        return {}

    @torch.no_grad()
    def _take(self, layer: nn.Module) -> None:
        """Take over weights, scales, grid and bias of a trained layer."""
        for role in layer.unlearned():
            raise RuntimeError(
                f'{type(self).__name__}: {role} must have learned its clip, got one that is not '
                'initialized. Load a compressed checkpoint, or train or calibrate the model first.'
            )
        levels, weight_step = integer_weight(type(self).__name__, layer)
        step, low, high = act_grid(layer.act_quant)
        scale = step.double().to(weight_step.device) * weight_step
        self.to(layer.weight.device)
        self.weight.copy_(levels)
        self.scale.copy_(scale)
        self.step.copy_(step)
        self.grid.copy_(torch.tensor([low, high]))
        if self.bias is not None:
            shift = 0 if layer.bias is None else layer.bias.double()
            if high > 127:  # unsigned levels are stored 128 lower, which the bias makes up for
                shift = shift + 128 * scale * levels.double().sum(1)
            self.bias.copy_(shift + torch.zeros_like(scale))
        self._low, self._high = low, high

    def _integer_input(self, x: Tensor) -> Tensor:
        """Check state and shape, and return the input as a batch, subsampled by the stride."""
        name = type(self).__name__
        if self.training and torch.is_grad_enabled():
            raise RuntimeError(
                f'{name}: integers have no gradient, got a call in training mode. Call model.eval(), or '
                'train the model before mmwcc.inference.to_integer.'
            )
        if self._low == self._high:
            raise RuntimeError(
                f'{name}: the layer must have weights, got none so far. Load a checkpoint of an integer '
                'model (tools/deployment/to_integer.py writes them).'
            )
        batch = CompressedConvMixin._batched(self, x)
        return batch if self.stride == (1, 1) else batch[:, :, :: self.stride[0], :: self.stride[1]]

    def _apply(self, fn, recurse: bool = True):
        # .half() and the like must not reach the buffers: a rounded step would change the levels.
        exact = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in exact.items():
            if buffer is not None and self._buffers[name].dtype != buffer.dtype:
                self._buffers[name] = buffer.to(self._buffers[name].device)
        return self

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if not self.grid.is_meta:
            self._low, self._high = self.grid.tolist()

    def extra_repr(self) -> str:
        stride = '' if self.stride == (1, 1) else f', stride={self.stride}'
        return (
            f'{self.in_channels}, {self.out_channels}{stride}, bias={self.bias is not None}, '
            f'grid={self._low}...{self._high}'
        )


@MODELS.register_module()
class IntegerConv2d(IntegerLayer):
    """A quantized 1x1 convolution in integers, for inference.

    It computes ``y = (q(x) @ weight.T) * scale + bias``. The input is rounded to int8 levels.
    Unsigned levels are stored 128 lower, which ``bias`` makes up for. The products are summed
    exactly in int32, then scaled and shifted in float32.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the convolution. Defaults to 1.
        weight_bits: Bits of the weights, for reports. Defaults to 8.
        act_bits: Bits of the input, for reports. Defaults to 8.

    Shape:
        (B, in_channels, H, W) to (B, out_channels, ceil(H / stride), ceil(W / stride)), with or
        without B, in the dtype of the input and always channels_last, as the products are stored.

    Raises:
        RuntimeError: If it is called without weights, or in training mode with gradients enabled.

    Note:
        The integer levels are those of the trained layer, so outputs differ only by the rounding of
        its float32 sums. NaN in the input becomes level 0 and does not show in the output.

    Example:
        >>> layer = QuantConv2d(8, 16, 1, weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer'),
        ...                     act_quant=dict(type='mmwcc.LearnedClipActQuantizer'))
        >>> expected = layer(x := torch.rand(1, 8, 4, 4))  # in training mode: calibrates
        >>> torch.allclose(IntegerConv2d.from_layer(layer).eval()(x), expected, atol=1e-5)
        True
    """

    _stands_for = QuantConv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride=1,
        *,
        weight_bits: int = 8,
        act_bits: int = 8,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, True, weight_bits, act_bits)

    @one_call
    def forward(self, x: Tensor) -> Tensor:
        batch = self._integer_input(x)
        rows = kernels.quantize_int8(batch, self.step, self._low, self._high)
        rows = kernels.int8_linear(rows, self.weight, self.scale, self.bias).to(x.dtype)
        y = rows.transpose(1, 2).unflatten(2, batch.shape[2:])
        return y if x.dim() == 4 else y.squeeze(0)


@MODELS.register_module()
class IntegerWaveletCompressedConv2d(IntegerLayer):
    """A quantized wavelet compressed convolution in integers, for inference.

    The input is transformed. The coefficients at the k positions of largest energy are rounded to
    the int8 grid, multiplied exactly by the int8 kernel and scaled in float32. Then they are put
    back in their positions and transformed back.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the convolution. Defaults to 1.
        bias: Whether there is a bias. Defaults to True.
        keep_ratio: Fraction of wavelet positions to keep in each image, in (0, 1].
        levels: Depth of the wavelet transform, at least 1. Defaults to 3.
        wavelet: 'haar', or a wavelet of PyWavelets. Defaults to 'haar'.
        selection: 'energy' or 'coarse'. Defaults to 'energy'.
        weight_bits: Bits of the weights, for reports. Defaults to 8.
        act_bits: Bits of the coefficients, for reports. Defaults to 8.

    Shape:
        As :class:`WaveletCompressedConv2d`, in the dtype and memory format of the input.

    Raises:
        TypeError: If keep_ratio is not a number or levels is not an integer.
        ValueError: If keep_ratio is not in (0, 1], levels < 1, or wavelet or selection is unknown.
        RuntimeError: If it is called without weights, or in training mode with gradients enabled.

    Note:
        As for :class:`IntegerConv2d`. Kept positions and integers are those of the trained layer.

    Reference:
        Finder et al., Wavelet Feature Maps Compression for Image-to-Image CNNs, NeurIPS 2022, equation (9).
    """

    _stands_for = WaveletCompressedConv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride=1,
        bias: bool = True,
        *,
        keep_ratio: float,
        levels: int = 3,
        wavelet: str = 'haar',
        selection: str = 'energy',
        weight_bits: int = 8,
        act_bits: int = 8,
    ) -> None:
        check_compression(
            type(self).__name__,
            keep_ratio=keep_ratio,
            levels=levels,
            wavelet=wavelet,
            selection=selection,
        )
        super().__init__(in_channels, out_channels, stride, bias, weight_bits, act_bits)
        self.keep_ratio, self.levels = float(keep_ratio), levels
        self.wavelet, self.selection = wavelet, selection

    @staticmethod
    def _settings(layer: WaveletCompressedConv2d) -> dict:
        return dict(
            bias=layer.bias is not None,
            keep_ratio=layer.keep_ratio,
            levels=layer.levels,
            wavelet=layer.wavelet,
            selection=layer.selection,
        )

    @one_call
    def forward(self, x: Tensor) -> Tensor:
        batch = self._integer_input(x)
        rows, slot = pack_int8(
            batch,
            keep_ratio=self.keep_ratio,
            levels=self.levels,
            wavelet=self.wavelet,
            selection=self.selection,
            step=self.step,
            low=self._low,
            high=self._high,
        )
        rows = kernels.int8_linear(rows, self.weight, self.scale).to(x.dtype)
        y = unpack(
            rows,
            slot,
            self.bias,
            size=batch.shape[2:],
            levels=self.levels,
            wavelet=self.wavelet,
            channels_last=kernels.is_channels_last(x if x.dim() == 4 else x.unsqueeze(0)),
        )
        return y if x.dim() == 4 else y.squeeze(0)

    def extra_repr(self) -> str:
        return (
            f'{super().extra_repr()}, keep_ratio={self.keep_ratio:g}, levels={self.levels}, '
            f'wavelet={self.wavelet!r}, selection={self.selection!r}'
        )


INTEGER_FORMS: dict[type[nn.Module], type[IntegerLayer]] = {
    form._stands_for: form for form in (IntegerConv2d, IntegerWaveletCompressedConv2d)
}
"""The integer form of each trainable class. Subclasses have none, as they may compute otherwise."""
