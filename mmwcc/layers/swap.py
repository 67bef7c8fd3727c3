"""What all layers that replace a dense one share: quantizers, weight, construction, loading."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from mmwcc.functional import multiply_rows, one_call, quantized_linear
from mmwcc.quantizers import CHANNEL, UniformQuantizer
from mmwcc.registry import MODELS

from .clipped_weight import ClippedWeight
from .components import check_quantizer, check_role

__all__ = [
    'COMPUTED',
    'CompressedConvMixin',
    'CompressedLayer',
    'CompressedLayerMixin',
    'build_quantizer',
    'check_parameters',
    'computed_tensor',
    'is_eligible',
]

COMPUTED = 'weight_norm, spectral_norm, pruning or a parametrization'
"""What can make the weight of a layer a function of other tensors."""


def computed_tensor(layer: nn.Module) -> str:
    """Return which of 'weight' and 'bias' is computed and not a parameter, or '' if neither is."""
    return next((name for name in ('weight', 'bias') if name not in layer._parameters), '')


def check_parameters(owner: str, layer: nn.Module) -> None:
    """Raise an error if a layer computes its weight or bias from other tensors.

    A new layer would only get the present value and no longer follow those tensors.

    Raises:
        ValueError: If weight or bias is not a parameter.
    """
    computed = computed_tensor(layer)
    if computed:
        argument = 'conv' if isinstance(layer, nn.Conv2d) else 'linear'
        raise ValueError(
            f'{owner}: the {computed} of {argument} must be a parameter, got one that is '
            f'computed ({COMPUTED}). Make it permanent first, for example by '
            'torch.nn.utils.parametrize.remove_parametrizations, or leave the layer '
            'as it is.'
        )


def is_eligible(kernel_size, padding, groups: int) -> bool:
    """Tell whether a convolution can be wavelet compressed.

    It can if it is 1x1, has no padding and has one group. The stride does not matter.
    """
    return (
        _pair(kernel_size) == (1, 1)
        and padding in (0, (0, 0), [0, 0], 'valid', 'same')
        and groups == 1
    )


def build_quantizer(
    owner: str, role: str, config: dict | UniformQuantizer | None
) -> UniformQuantizer | None:
    """Build the quantizer that ``config`` describes.

    Args:
        owner: Name of the class that raises the error.
        role: 'weight_quant' or 'act_quant'.
        config: None, a quantizer, or a dict with a registered ``type``.

    Raises:
        TypeError: If config is anything else.
        ValueError: If there is no such type, it is for the other role, it has no such argument, or
            act_quant has one clip per output channel.
    """
    if isinstance(config, dict) and 'type' in config:
        check_quantizer(f'{owner}: {role}', role, config)
        config = MODELS.build(config)
    if config is not None and not isinstance(config, UniformQuantizer):
        kind = 'Weight' if role == 'weight_quant' else 'Act'
        raise TypeError(
            f'{owner}: {role} must be None, a quantizer or a dict with a type, got {config!r}. Use '
            f"dict(type='mmwcc.LearnedClip{kind}Quantizer', bits=8)."
        )
    check_role(f'{owner}: {role}', role, type(config))
    if role == 'act_quant' and config is not None and config.scales == CHANNEL:
        raise ValueError(
            f'{owner}: act_quant must have one clip, got a {type(config).__name__} with one for '
            'each output channel, of which activations have none. Leave per_channel out.'
        )
    return config


class CompressedLayer:
    """Base class of all layers that replace a dense one, trainable or integer."""

    in_channels: int

    def _batched(self, x: Tensor) -> Tensor:
        name = type(self).__name__
        if x.dim() not in (3, 4):
            raise ValueError(
                f'{name}: x must have shape (B, C, H, W) or (C, H, W), got {tuple(x.shape)}. '
                'Reshape it before this layer.'
            )
        if x.shape[-3] != self.in_channels:
            raise ValueError(
                f'{name}: x must have in_channels={self.in_channels} channels, got shape '
                f'{tuple(x.shape)}. Give the layer the channel count of its input.'
            )
        return x if x.dim() == 4 else x.unsqueeze(0)


class CompressedLayerMixin(CompressedLayer, ClippedWeight):
    """Add two quantizers and the means to replace a dense layer to a subclass of that layer."""

    def _build_quantizers(self, weight_quant, act_quant) -> None:
        self.weight_quant = build_quantizer(type(self).__name__, 'weight_quant', weight_quant)
        self.act_quant = build_quantizer(type(self).__name__, 'act_quant', act_quant)
        if self.weight_quant is not None:
            self.weight_quant.fit(self.weight.shape[0])
        self.register_buffer('weight_scale', None)

    @property
    def _by_energy(self) -> bool:
        """Whether positions are quantized by their energy, with a scale each."""
        return self.act_quant is not None and self.act_quant.position_widths is not None

    def _freeze_quantizers(self) -> None:
        """Freeze the clips together with the weight: in a frozen layer they get no gradient."""
        for quantizer in filter(None, (self.weight_quant, self.act_quant)):
            quantizer.requires_grad_(False)

    @staticmethod
    def _geometry_of(dense: Any) -> dict[str, Any]:
        """Return the arguments of the dense layer's own constructor."""
        raise NotImplementedError

    def geometry(self) -> dict[str, Any]:
        """Return the arguments with which the constructor of the dense layer builds one like it."""
        return self._geometry_of(self)

    @classmethod
    def from_dense(cls, dense: Any, *, weight_quant=None, act_quant=None, **compression):
        """Build the layer that replaces ``dense``.

        It has the geometry of ``dense`` and uses the same ``weight`` and ``bias`` objects.

        Args:
            dense: The layer to replace.
            weight_quant: As in the constructor, like act_quant.
            **compression: Other keyword-only arguments of the class.

        Returns:
            The new layer, with the device and training mode of ``dense``. Hooks stay with
            ``dense``; :func:`mmwcc.compression.compress_model` carries them over.

        Raises:
            ValueError: If the weight or bias of ``dense`` is not a parameter.
        """
        check_parameters(cls.__name__, dense)
        quantizers: dict[str, Any] = {
            role: build_quantizer(cls.__name__, role, config)
            for role, config in (('weight_quant', weight_quant), ('act_quant', act_quant))
        }
        # The weights are replaced at once, so spend no memory and no random numbers on them.
        with torch.device('meta'):
            layer: Any = cls(**cls._geometry_of(dense), **quantizers, **compression)
        layer.weight, layer.bias = dense.weight, dense.bias
        if not dense.weight.requires_grad:
            layer._freeze_quantizers()
        return layer.to(dense.weight.device).train(dense.training)

    def _quantization(self, role: str, x: Tensor, positions: int | None = None):
        quantizer = getattr(self, role)
        return None if quantizer is None else quantizer.arguments(x, positions)

    def _product(
        self,
        rows: Tensor,
        kernel: Tensor,
        bias: Tensor | None = None,
        positions: int | None = None,
    ) -> Tensor:
        """Multiply rows, shape (B, k, C), by a kernel (O, C, 1, 1), both quantized.

        The rows are some of as many positions, or all if that is None.
        """
        if self.weight_quant is None and self.act_quant is None:
            return multiply_rows(rows, kernel, bias)
        return quantized_linear(
            rows,
            kernel,
            bias,
            act=self._quantization('act_quant', rows, positions),
            wgt=self._quantization('weight_quant', kernel),
            scale=self.weight_scale,
        )

    def unlearned(self) -> list[str]:
        """Return the names of the quantizers that need a clip but have not learned one.

        Zeros need no clip. A quantizer therefore needs none if its weights are all zero, or if its
        input has only ever been zero.
        """
        needed = dict(
            weight_quant=lambda: bool(self.weight.any()),
            act_quant=lambda: self.act_quant is None or not self.act_quant.met_zeros_alone,
        )
        return [
            role
            for role, is_needed in needed.items()
            if (quantizer := getattr(self, role)) is not None
            and quantizer.is_on
            and not quantizer.is_settled
            and is_needed()
        ]


if TYPE_CHECKING:  # every class that uses this mixin is a convolution
    _Conv2d = nn.Conv2d
else:
    _Conv2d = object


class CompressedConvMixin(CompressedLayerMixin, _Conv2d):
    """:class:`CompressedLayerMixin` for subclasses of ``nn.Conv2d``."""

    @staticmethod
    def _geometry_of(conv: nn.Conv2d) -> dict[str, Any]:
        geometry: dict[str, Any] = dict(
            in_channels=conv.in_channels,
            out_channels=conv.out_channels,
            kernel_size=conv.kernel_size,
            stride=conv.stride,
            padding=conv.padding,
            dilation=conv.dilation,
            groups=conv.groups,
            bias=conv.bias is not None,
        )
        if conv.padding_mode != 'zeros' and any(conv._reversed_padding_repeated_twice):
            geometry['padding_mode'] = conv.padding_mode
        return geometry

    @classmethod
    def from_conv2d(cls, conv: nn.Conv2d, *, weight_quant=None, act_quant=None, **compression):
        """Build the layer that replaces a convolution, see :meth:`from_dense`."""
        return cls.from_dense(conv, weight_quant=weight_quant, act_quant=act_quant, **compression)

    @one_call
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight, self.bias)
