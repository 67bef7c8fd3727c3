"""Trainable layers that take the place of ``torch.nn.Conv2d`` and ``torch.nn.Linear``."""

from .components import check_component, check_quantizer
from .dfwt import DepthwiseFastWaveletTransform, deepest_kappa
from .lean_activation import LeanReLU, LeanReLU6
from .quant_conv import QuantConv2d
from .quant_linear import CompressedLinearMixin, QuantLinear
from .separable_conv import SeparableConv2d, check_init
from .swap import (
    COMPUTED,
    CompressedConvMixin,
    CompressedLayer,
    CompressedLayerMixin,
    check_parameters,
    computed_tensor,
    is_eligible,
)
from .token_maps import TokenGrid, TokenMap, fitting_levels, token_maps
from .token_rows import TokenRows
from .token_transform import TokenTransform
from .wavelet_compressed_conv import WCC, WaveletCompressedConv2d
from .wavelet_compressed_linear import WaveletCompressedLinear
from .wavelet_conv import WaveletConv2d, WConv, wavelet_partition

__all__ = [
    'COMPUTED',
    'WCC',
    'CompressedConvMixin',
    'CompressedLayer',
    'CompressedLayerMixin',
    'CompressedLinearMixin',
    'DepthwiseFastWaveletTransform',
    'LeanReLU',
    'LeanReLU6',
    'QuantConv2d',
    'QuantLinear',
    'SeparableConv2d',
    'TokenGrid',
    'TokenMap',
    'TokenRows',
    'TokenTransform',
    'WConv',
    'WaveletCompressedConv2d',
    'WaveletCompressedLinear',
    'WaveletConv2d',
    'check_component',
    'check_init',
    'check_parameters',
    'check_quantizer',
    'computed_tensor',
    'deepest_kappa',
    'fitting_levels',
    'is_eligible',
    'token_maps',
    'wavelet_partition',
]
