"""Operators of mmwcc, registered as ``torch.ops.mmwcc.*``.

They compute joint wavelet shrinkage, fake quantization and integer products. One file holds the
whole contract of an operator: its schema, checks, plain-torch reference, fake implementation and
gradient. These files need torch alone. ``cpu/`` and ``triton/`` only make the operators fast (see
:mod:`mmwcc.kernels.dispatch`). The layout of coefficients is described in
:mod:`mmwcc.kernels.layout`, and how ties are broken in :func:`select`.
"""

from .byte_map import add_maps, cat_maps, map_values, mean_map, rescale_map, round_map
from .depthwise import depthwise_haar
from .energy import (
    WIDTHS,
    energy_int8,
    energy_quant,
    energy_quant_backward,
    position_bits,
    row_bits,
)
from .fake_quant import fake_quant, fake_quant_backward
from .gather import gather_rows, gather_rows_int8
from .haar import haar_norms, haar_pack, haar_pack_int8, haar_unpack
from .int8 import int8_linear, quantize_int8
from .int8_conv import PackedConv, int8_conv2d, pack_int8_conv
from .layout import coarse_rank, fold, is_channels_last, padded_size, position_count, unfold
from .library import COSTS, Cost
from .product import is_faster_as_map, multiply_rows, plain_product, rows_as_map, rows_of_map
from .resize import resize_map, resize_planes
from .select import select, slot_of
from .shrink import haar_shrink, haar_shrink_int8

__all__ = [
    'COSTS',
    'Cost',
    'PackedConv',
    'WIDTHS',
    'add_maps',
    'cat_maps',
    'coarse_rank',
    'depthwise_haar',
    'energy_int8',
    'energy_quant',
    'energy_quant_backward',
    'fake_quant',
    'fake_quant_backward',
    'fold',
    'gather_rows',
    'gather_rows_int8',
    'haar_norms',
    'haar_pack',
    'haar_pack_int8',
    'haar_shrink',
    'haar_shrink_int8',
    'haar_unpack',
    'int8_conv2d',
    'int8_linear',
    'is_channels_last',
    'is_faster_as_map',
    'map_values',
    'mean_map',
    'multiply_rows',
    'pack_int8_conv',
    'padded_size',
    'plain_product',
    'position_bits',
    'position_count',
    'quantize_int8',
    'rescale_map',
    'resize_map',
    'resize_planes',
    'round_map',
    'row_bits',
    'rows_as_map',
    'rows_of_map',
    'select',
    'slot_of',
    'unfold',
]
