"""What turns a model: the compression config, the conversion, its report, and schedules."""
from .config import CompressionConfig, Rule
from .convert import compress_model, compressed_layers
from .report import CompressionReport, LayerReport

__all__ = [
    'CompressionConfig', 'CompressionReport', 'LayerReport', 'Rule', 'compress_model', 'compressed_layers'
]
