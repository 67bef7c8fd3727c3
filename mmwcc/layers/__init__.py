"""Trainable layers that take the place of ``torch.nn.Conv2d``."""

from .components import check_component, check_quantizer
from .dfwt import DepthwiseFastWaveletTransform, deepest_kappa
from .lean_activation import LeanReLU, LeanReLU6
from .quant_conv import QuantConv2d
from .separable_conv import SeparableConv2d, check_init
from .swap import (
    COMPUTED,
    CompressedConvMixin,
    CompressedLayer,
    check_parameters,
    computed_tensor,
    is_eligible,
)
from .wavelet_compressed_conv import WCC, WaveletCompressedConv2d
from .wavelet_conv import WaveletConv2d, WConv, wavelet_partition

__all__ = [
    'COMPUTED',
    'WCC',
    'CompressedConvMixin',
    'CompressedLayer',
    'DepthwiseFastWaveletTransform',
    'LeanReLU',
    'LeanReLU6',
    'QuantConv2d',
    'SeparableConv2d',
    'WConv',
    'WaveletCompressedConv2d',
    'WaveletConv2d',
    'check_component',
    'check_init',
    'check_parameters',
    'check_quantizer',
    'computed_tensor',
    'deepest_kappa',
    'is_eligible',
    'wavelet_partition',
]
