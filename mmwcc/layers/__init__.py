"""Compressed convolutions that take the place of ``torch.nn.Conv2d``."""
from .quant_conv import QuantConv2d
from .wavelet_compressed_conv import WCC, WaveletCompressedConv2d, is_eligible

__all__ = ['WCC', 'QuantConv2d', 'WaveletCompressedConv2d', 'is_eligible']
