"""Compressed convolutions that take the place of ``torch.nn.Conv2d``."""
from .dfwt import DepthwiseFastWaveletTransform, deepest_kappa
from .integer_conv import IntegerConv2d, IntegerWaveletCompressedConv2d
from .inverted_residual import FoldedConv, FusedInvertedResidual, clamp_bounds
from .lean_activation import LeanReLU, LeanReLU6
from .quant_conv import QuantConv2d
from .separable_conv import SeparableConv2d
from .wavelet_compressed_conv import WCC, WaveletCompressedConv2d, is_eligible
from .wavelet_conv import WaveletConv2d, WConv, wavelet_partition

__all__ = [
    'WCC', 'DepthwiseFastWaveletTransform', 'FoldedConv', 'FusedInvertedResidual', 'IntegerConv2d',
    'IntegerWaveletCompressedConv2d', 'LeanReLU', 'LeanReLU6', 'QuantConv2d', 'SeparableConv2d', 'WConv',
    'WaveletCompressedConv2d', 'WaveletConv2d', 'clamp_bounds', 'deepest_kappa', 'is_eligible', 'wavelet_partition'
]
