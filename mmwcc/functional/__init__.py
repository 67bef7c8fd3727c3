"""The mathematics of mmwcc as functions.

They cover wavelets, joint shrinkage, quantized products, compressed convolution and resizing.
"""

from .atoms import atom_norms
from .channel_wavelets import dfwt, inverse_dfwt
from .energy import bits_of_positions, energy_int8, largest_share, packed_ratio, unit_rows
from .fractions import kept_positions
from .quantization import QuantizationSpec, normalization, quantize
from .quantized_product import quantized_conv2d, quantized_linear
from .resize import resize_bicubic
from .rows import multiply_rows
from .shrinkage import SELECTIONS, WAVELETS, pack, pack_int8, unpack
from .tracing import one_call
from .wavelet_compressed_conv import (
    check_compression,
    check_keep_ratio,
    check_selection,
    wavelet_compressed_conv2d,
)
from .wavelets import filter_bank, wavedec2, waverec2

__all__ = [
    'SELECTIONS',
    'WAVELETS',
    'QuantizationSpec',
    'atom_norms',
    'bits_of_positions',
    'energy_int8',
    'check_compression',
    'check_keep_ratio',
    'check_selection',
    'dfwt',
    'filter_bank',
    'inverse_dfwt',
    'kept_positions',
    'largest_share',
    'multiply_rows',
    'normalization',
    'one_call',
    'pack',
    'packed_ratio',
    'pack_int8',
    'quantize',
    'quantized_conv2d',
    'quantized_linear',
    'resize_bicubic',
    'unit_rows',
    'unpack',
    'wavedec2',
    'wavelet_compressed_conv2d',
    'waverec2',
]
