"""References for layers and operators: their arithmetic in float64, written independently of mmwcc."""

from .grid import Grid, Quantized
from .reference import (
    WAVELETS,
    Reference,
    Transform,
    check_selection,
    kept_count,
    mallat_index,
    matrices,
    reference_wcc,
    relative_error,
    select,
    to_numpy,
)

__all__ = [
    'WAVELETS',
    'Grid',
    'Quantized',
    'Reference',
    'Transform',
    'check_selection',
    'kept_count',
    'mallat_index',
    'matrices',
    'reference_wcc',
    'relative_error',
    'select',
    'to_numpy',
]
