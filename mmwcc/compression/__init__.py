"""What turns a model: the compression config, the conversion, its report, and schedules."""
from .config import CompressionConfig, Rule
from .convert import compress_model, compressed_layers
from .fuse import BlockReport, FusionReport, fuse_inverted_residuals
from .integer import INTEGER_LAYERS, to_integer
from .report import CompressionReport, LayerReport

__all__ = [
    'INTEGER_LAYERS', 'BlockReport', 'CompressionConfig', 'CompressionReport', 'FusionReport', 'LayerReport', 'Rule',
    'compress_model', 'compressed_layers', 'fuse_inverted_residuals', 'to_integer'
]
