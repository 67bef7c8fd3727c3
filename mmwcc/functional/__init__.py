"""The mathematics as functions: wavelet transforms, joint shrinkage, quantized products, compressed convolution."""
from .quantization import QuantizationSpec, quantize, quantized_conv2d, quantized_linear
from .shrinkage import SELECTIONS, WAVELETS, kept_positions, pack, unpack
from .wavelet_compressed_conv import wavelet_compressed_conv2d
from .wavelets import wavedec2, waverec2

__all__ = [
    'SELECTIONS', 'WAVELETS', 'QuantizationSpec', 'kept_positions', 'pack', 'quantize', 'quantized_conv2d',
    'quantized_linear', 'unpack', 'wavedec2', 'wavelet_compressed_conv2d', 'waverec2'
]
