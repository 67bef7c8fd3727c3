"""Integer and fused layers for inference, and the functions that convert a trained model."""

from .example_grids import example_grids
from .fold import fold_batch_norm, scale_and_bias, scale_channels
from .fuse import BlockReport, FusionReport, fuse_inverted_residuals
from .integer_conv import IntegerConv2d, IntegerWaveletCompressedConv2d
from .integer_layer import IntegerLayer
from .integer_levels import act_grid, integer_weight
from .integer_linear import IntegerLinear, IntegerLinearLayer, IntegerWaveletCompressedLinear
from .inverted_residual import FoldedConv, FusedInvertedResidual, clamp_bounds
from .map_conv import IntegerMapConv2d
from .quantized_map import QuantizedMap
from .record import RecordedNetwork, record
from .to_integer import UNLEARNED, integer_skeleton, to_integer

__all__ = [
    'UNLEARNED',
    'BlockReport',
    'FoldedConv',
    'FusedInvertedResidual',
    'FusionReport',
    'IntegerConv2d',
    'IntegerLayer',
    'IntegerLinear',
    'IntegerLinearLayer',
    'IntegerMapConv2d',
    'IntegerWaveletCompressedConv2d',
    'IntegerWaveletCompressedLinear',
    'QuantizedMap',
    'RecordedNetwork',
    'act_grid',
    'clamp_bounds',
    'example_grids',
    'fold_batch_norm',
    'fuse_inverted_residuals',
    'integer_skeleton',
    'integer_weight',
    'record',
    'scale_and_bias',
    'scale_channels',
    'to_integer',
]
