"""Quantized convolution."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mmwcc.functional import quantized_conv2d
from mmwcc.registry import MODELS

from .swap import CompressedConvMixin, is_eligible

__all__ = ['QuantConv2d']


@MODELS.register_module()
class QuantConv2d(CompressedConvMixin, nn.Conv2d):
    """A convolution that quantizes its weight and its input.

    It supports every kernel size, stride, padding, dilation and number of groups. Parameters keep
    their names and shapes, so a checkpoint of ``nn.Conv2d`` loads with only the quantizers' keys
    missing. For backward, the layer saves the unquantized input once and quantizes it again.

    Args:
        in_channels: As in :class:`torch.nn.Conv2d`, like all arguments up to ``dtype``.
        weight_quant: Quantizer of the weight, or its config. Defaults to None, which does not
            quantize.
        act_quant: Quantizer of the input, or its config. Defaults to None, which does not quantize.

    Shape:
        As :class:`torch.nn.Conv2d`.

    Raises:
        TypeError: If a quantizer argument is not None, a quantizer or a dict with a type.
        ValueError: If an argument of the convolution or of a quantizer is outside its range.

    Example:
        >>> act_quant = dict(type='mmwcc.LearnedClipActQuantizer', bits=8)
        >>> layer = QuantConv2d(8, 16, 3, padding=1, act_quant=act_quant)
        >>> layer(torch.rand(1, 8, 5, 5)).shape
        torch.Size([1, 16, 5, 5])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size,
        stride=1,
        padding=0,
        dilation=1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Any = 'zeros',
        device=None,
        dtype=None,
        *,
        weight_quant: dict | None = None,
        act_quant: dict | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        self._build_quantizers(weight_quant, act_quant)
        self._check_scales()

    def _check_scales(self) -> None:
        """Refuse a scale for every pixel where the product mixes pixels."""
        mixes = not is_eligible(self.kernel_size, self.padding, self.groups)
        if mixes and self._by_energy:
            raise ValueError(
                f'{type(self).__name__}: act_quant must have one scale for all pixels unless the '
                f'layer is a 1x1 convolution without padding and groups, got '
                f'{type(self.act_quant).__name__} for kernel_size={self.kernel_size}, groups='
                f'{self.groups}. Give it to 1x1 convolutions only, as '
                'compression=dict(pointwise=dict(act_quant=...)) does.'
            )

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        batch = self._batched(x)
        padding = self.padding
        if self.padding_mode != 'zeros' or isinstance(padding, str):
            mode = 'constant' if self.padding_mode == 'zeros' else self.padding_mode
            batch, padding = F.pad(batch, self._reversed_padding_repeated_twice, mode=mode), (0, 0)
        y = quantized_conv2d(
            batch,
            weight,
            bias,
            self.stride,
            padding,
            self.dilation,
            self.groups,
            act=self._quantization('act_quant', batch),
            wgt=self._quantization('weight_quant', weight),
            scale=self.weight_scale,
        )
        return y if x.dim() == 4 else y.squeeze(0)
