"""What can be said of a network: which channels depend on which, and how its feature maps survive compression."""
from .allocation_plot import plot_allocation
from .compression_error import CompressionErrors, measure_errors, plot_errors, write_errors
from .connectivity import adjacency, path_counts

__all__ = [
    'CompressionErrors', 'adjacency', 'measure_errors', 'path_counts', 'plot_allocation', 'plot_errors', 'write_errors'
]
