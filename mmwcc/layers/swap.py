"""What every layer that replaces ``nn.Conv2d`` shares: its quantizers, its weight, how it takes over, how it loads."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmwcc.functional import one_call
from mmwcc.quantizers import CHANNEL, UniformQuantizer
from mmwcc.registry import MODELS

from .clipped_weight import ClippedWeight

__all__ = [
    'COMPUTED', 'CompressedConvMixin', 'CompressedLayer', 'build_quantizer', 'check_parameters', 'computed_tensor'
]

COMPUTED = 'weight_norm, spectral_norm, pruning or a parametrization'
"""What computes the weight of a convolution from other tensors."""


def computed_tensor(conv: nn.Module) -> str:
    """Name the tensor of a convolution that is computed, not a parameter, or return ''."""
    return next((name for name in ('weight', 'bias') if name not in conv._parameters), '')


def check_parameters(owner: str, conv: nn.Conv2d) -> None:
    """Refuse a convolution whose weight or bias is computed: a copy would no longer follow it.

    Raises:
        ValueError: If weight or bias is no parameter.
    """
    computed = computed_tensor(conv)
    if computed:
        raise ValueError(f'{owner}: the {computed} of conv must be a parameter, got one that is '
                         f'computed ({COMPUTED}). Make it permanent first, for example by '
                         'torch.nn.utils.parametrize.remove_parametrizations, or leave the layer '
                         'as it is.')


def build_quantizer(owner: str, role: str, config: dict | UniformQuantizer | None) -> UniformQuantizer | None:
    """Build the quantizer that ``config`` describes.

    Args:
        owner: Name of the class that the error speaks for.
        role: 'weight_quant' or 'act_quant'.
        config: None, a quantizer, or a dict with a registered ``type``.

    Raises:
        TypeError: If config is anything else.
        ValueError: If act_quant has a clip for each output channel.
    """
    if isinstance(config, dict) and 'type' in config:
        config = MODELS.build(config)
    if config is not None and not isinstance(config, UniformQuantizer):
        kind = 'Weight' if role == 'weight_quant' else 'Act'
        raise TypeError(f'{owner}: {role} must be None, a quantizer or a dict with a type, got {config!r}. Use '
                        f"dict(type='mmwcc.LearnedClip{kind}Quantizer', bits=8).")
    if role == 'act_quant' and config is not None and config.scales == CHANNEL:
        raise ValueError(f'{owner}: act_quant must have one clip, got a {type(config).__name__} with one for each '
                         'output channel, of which activations have none. Leave per_channel out.')
    return config


class CompressedLayer:
    """What a layer of ours is that takes the place of a convolution, trainable or in integers."""


class CompressedConvMixin(CompressedLayer, ClippedWeight):
    """Give a subclass of ``nn.Conv2d`` a weight and an activation quantizer and a way to take a convolution over."""

    def _build_quantizers(self, weight_quant, act_quant) -> None:
        self.weight_quant = build_quantizer(type(self).__name__, 'weight_quant', weight_quant)
        self.act_quant = build_quantizer(type(self).__name__, 'act_quant', act_quant)
        if self.weight_quant is not None:
            self.weight_quant.fit(self.out_channels)
        self.register_buffer('weight_scale', None)

    def _freeze_quantizers(self) -> None:
        """Let clips ask for no gradient, as the weight does not: in a frozen layer they would not get any."""
        for quantizer in filter(None, (self.weight_quant, self.act_quant)):
            quantizer.requires_grad_(False)

    @classmethod
    def from_conv2d(cls, conv: nn.Conv2d, *, weight_quant=None, act_quant=None, **compression):
        """Build this layer in the place of ``conv``: same geometry, the same ``weight`` and ``bias`` objects.

        Args:
            conv: The convolution to replace.
            weight_quant: As in the constructor, as act_quant.
            **compression: Other keyword-only arguments of the class.

        Returns:
            The new layer, on the device and in the training mode of ``conv``. Hooks stay with
            ``conv``; :func:`mmwcc.compression.compress_model` carries them over.

        Raises:
            ValueError: If the weight or bias of ``conv`` is no parameter.
        """
        check_parameters(cls.__name__, conv)
        geometry: dict[str, Any] = dict(kernel_size=conv.kernel_size, stride=conv.stride, padding=conv.padding,
                                        dilation=conv.dilation, groups=conv.groups, bias=conv.bias is not None)
        if conv.padding_mode != 'zeros' and any(conv._reversed_padding_repeated_twice):
            geometry['padding_mode'] = conv.padding_mode
        quantizers: dict[str, Any] = {
            role: build_quantizer(cls.__name__, role, config)
            for role, config in (('weight_quant', weight_quant), ('act_quant', act_quant))}
        with torch.device('meta'):  # no memory and no random numbers for weights that are replaced at once
            layer = cls(conv.in_channels, conv.out_channels, **geometry, **quantizers, **compression)
        layer.weight, layer.bias = conv.weight, conv.bias
        if not conv.weight.requires_grad:
            layer._freeze_quantizers()
        return layer.to(conv.weight.device).train(conv.training)

    @one_call
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight, self.bias)

    def _quantization(self, role: str, x: Tensor):
        quantizer = getattr(self, role)
        return None if quantizer is None else quantizer.arguments(x)

    def _batched(self, x: Tensor) -> Tensor:
        name = type(self).__name__
        if x.dim() not in (3, 4):
            raise ValueError(f'{name}: x must have shape (B, C, H, W) or (C, H, W), got {tuple(x.shape)}. Reshape it '
                             'before this layer.')
        if x.shape[-3] != self.in_channels:
            raise ValueError(f'{name}: x must have in_channels={self.in_channels} channels, got shape '
                             f'{tuple(x.shape)}. Give the layer the channel count of its input.')
        return x if x.dim() == 4 else x.unsqueeze(0)

    def unlearned(self) -> list[str]:
        """Return the names of the quantizers that have not learned a clip which their values need.

        Zeros accept any clip: weights of zeros need none, and neither does an input that never was
        anything else.
        """
        needed = dict(weight_quant=lambda: bool(self.weight.any()),
                      act_quant=lambda: self.act_quant is None or not self.act_quant.met_zeros_alone)
        return [role for role, is_needed in needed.items()
                if (quantizer := getattr(self, role)) is not None and quantizer.bits != 32
                and not quantizer.is_settled and is_needed()]
