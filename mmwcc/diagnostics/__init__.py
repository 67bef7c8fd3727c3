"""Diagnostics of a network: its layers and feature maps under compression, latency, channels."""

from .compression_error import WAVELET, CompressionErrors, measure_errors
from .connectivity import adjacency, path_counts
from .error_plot import plot_errors
from .error_table import write_errors
from .feature_maps import (
    CompressedMap,
    MapError,
    compress_by_energy,
    compress_map,
    eligible_layers,
    equal_cost_bits,
    map_error,
    observe_inputs,
    quantize_map,
)
from .figure_text import fit_titles
from .latency import dense_twin, device_name, measure_latency, peak_memory
from .layer_groups import (
    GROUPINGS,
    MEASURES,
    TRAINING_PREFIX,
    VALIDATION_PREFIX,
    ScalarName,
    group_of,
    group_scalars,
    parse_scalar,
)
from .layer_stats import LayerStats

__all__ = [
    'CompressedMap',
    'GROUPINGS',
    'MEASURES',
    'TRAINING_PREFIX',
    'VALIDATION_PREFIX',
    'WAVELET',
    'CompressionErrors',
    'LayerStats',
    'MapError',
    'ScalarName',
    'adjacency',
    'compress_by_energy',
    'compress_map',
    'dense_twin',
    'device_name',
    'eligible_layers',
    'equal_cost_bits',
    'fit_titles',
    'group_of',
    'group_scalars',
    'map_error',
    'measure_errors',
    'measure_latency',
    'observe_inputs',
    'parse_scalar',
    'path_counts',
    'peak_memory',
    'plot_errors',
    'quantize_map',
    'write_errors',
]
