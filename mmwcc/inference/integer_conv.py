"""Integer forms of trained quantized 1x1 convolutions: int8 inputs times int8 weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mmwcc import kernels
from mmwcc.functional import one_call, pack, pack_int8, unpack
from mmwcc.layers import QuantConv2d, WaveletCompressedConv2d
from mmwcc.registry import MODELS

from .integer_layer import PointwiseIntegerLayer
from .integer_wavelets import IntegerWavelets

__all__ = ['IntegerConv2d', 'IntegerWaveletCompressedConv2d']


@MODELS.register_module()
class IntegerConv2d(PointwiseIntegerLayer):
    """A quantized 1x1 convolution in integers, for inference.

    It computes ``y = (q(x) @ weight.T) * scale + bias``. The input is rounded to int8 levels.
    Unsigned levels are stored 128 lower, which ``bias`` makes up for. The products are summed
    exactly in int32, then scaled and shifted in float32.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the convolution. Defaults to 1.
        weight_bits: Bits of the weights, for reports. Defaults to 8.
        act_bits: Bits of the input, for reports unless there are ``widths``. Defaults to 8.
        widths: As of :class:`~mmwcc.EnergyActQuantizer`, if pixels have a scale each; () if all
            have ``act_bits`` bits. Defaults to None, one scale for all.

    Shape:
        (B, in_channels, H, W) to (B, out_channels, ceil(H / stride), ceil(W / stride)), with or
        without B, in the dtype of the input and always channels_last, as the products are stored.

    Raises:
        RuntimeError: If it is called without weights, or in training mode with gradients enabled.

    Note:
        The integer levels are those of the trained layer, so outputs differ only by the rounding of
        its float32 sums. NaN in the input becomes level 0 and does not show in the output.

    Example:
        >>> quantizers = dict(
        ...     weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer'),
        ...     act_quant=dict(type='mmwcc.LearnedClipActQuantizer'),
        ... )
        >>> layer = QuantConv2d(8, 16, 1, **quantizers)
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
        act_bits: float = 8,
        widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, True, weight_bits, act_bits, widths)

    @one_call
    def forward(self, x: Tensor) -> Tensor:
        batch = self._integer_input(x)
        if self.clips is None:  # straight from the map, whatever its strides
            levels = kernels.quantize_int8(batch, self.step, self._low, self._high)
            rows = kernels.int8_linear(levels, self.weight, self.scale, self.bias, dtype=x.dtype)
        else:
            rows = batch.flatten(2).transpose(1, 2)
            rows = self._multiplied(rows, self.bias, rows.shape[1])
        y = rows.transpose(1, 2).unflatten(2, batch.shape[2:])
        return y if x.dim() == 4 else y.squeeze(0)


@MODELS.register_module()
class IntegerWaveletCompressedConv2d(IntegerWavelets, PointwiseIntegerLayer):
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
        act_bits: Bits of the coefficients, for reports unless there are ``widths``. Defaults to 8.
        widths: As of :class:`~mmwcc.EnergyActQuantizer`, if coefficients have a scale each; () if
            all have ``act_bits`` bits. Defaults to None, one scale for all.

    Shape:
        As :class:`WaveletCompressedConv2d`, in the dtype and memory format of the input.

    Raises:
        TypeError: If keep_ratio is not a number or levels is not an integer.
        ValueError: If keep_ratio is not in (0, 1], levels < 1, or wavelet or selection is unknown.
        RuntimeError: If it is called without weights, or in training mode with gradients enabled.

    Note:
        As for :class:`IntegerConv2d`. Kept positions and integers are those of the trained layer.

    Reference:
        Finder et al., Wavelet Feature Maps Compression for Image-to-Image CNNs, NeurIPS 2022,
        equation (9).
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
        act_bits: float = 8,
        widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, bias, weight_bits, act_bits, widths)
        self._build_transform(keep_ratio, levels, wavelet, selection)

    @one_call
    def forward(self, x: Tensor) -> Tensor:
        batch = self._integer_input(x)
        rows, slot, steps = self._pack(batch)
        rows = kernels.int8_linear(rows, self.weight, self.scale, factors=steps, dtype=x.dtype)
        y = unpack(
            rows,
            slot,
            self.bias,
            size=batch.shape[2:],
            levels=self.levels,
            wavelet=self.wavelet,
            channels_last=kernels.is_channels_last(x if x.dim() == 4 else x.unsqueeze(0)),
            unit_atoms=self._by_energy,
        )
        return y if x.dim() == 4 else y.squeeze(0)

    def _pack(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the levels and the slot of what is kept, and its steps if they differ."""
        transform: dict[str, Any] = dict(
            levels=self.levels, wavelet=self.wavelet, selection=self.selection
        )
        if self.clips is None:
            grid: dict[str, Any] = dict(step=self.step, low=self._low, high=self._high)
            return *pack_int8(batch, keep_ratio=self.keep_ratio, **transform, **grid), None
        rows, slot = pack(batch, keep_ratio=self.packed_ratio, **transform, unit_atoms=True)
        levels, steps = self._rounded_by_energy(rows, slot.shape[1])
        return levels, slot, steps
