"""What turns a model: the compression config, the conversion, its report, and schedules."""
from .allocation import Allocation, Candidate, allocate, allocated_compression, find_candidates
from .calibrate import CalibrationReport, calibrate, reestimate_batch_norm
from .config import CompressionConfig, Rule
from .convert import compress_model, compressed_layers
from .cost import CostReport, LayerCost, count_cost
from .fuse import BlockReport, FusionReport, fuse_inverted_residuals
from .integer import INTEGER_LAYERS, to_integer
from .lean import lean_activations
from .report import CompressionReport, LayerReport
from .sensitivity import Choice, Grid, LayerSensitivity, measure_sensitivity
from .separate import SeparatedLayer, SeparationReport, separate_convs
from .unhandled import UnhandledLayers

__all__ = [
    'INTEGER_LAYERS', 'Allocation', 'BlockReport', 'CalibrationReport', 'Candidate', 'Choice', 'CompressionConfig',
    'CompressionReport', 'CostReport', 'FusionReport', 'Grid', 'LayerCost', 'LayerReport', 'LayerSensitivity',
    'Rule', 'SeparatedLayer', 'SeparationReport', 'UnhandledLayers', 'allocate',
    'allocated_compression', 'calibrate', 'compress_model', 'compressed_layers',
    'count_cost', 'find_candidates', 'fuse_inverted_residuals',
    'lean_activations', 'measure_sensitivity', 'reestimate_batch_norm', 'separate_convs', 'to_integer'
]
