"""References for layers and operators: their arithmetic in float64, independent of mmwcc."""

from .grid import Grid, Quantized
from .reference import (
    Compression,
    Measured,
    Reference,
    check_selection,
    kept_count,
    reference_wcc,
    relative_error,
    select,
    to_numpy,
)
from .transform import WAVELETS, Transform, mallat_index, matrices

__all__ = [
    'WAVELETS',
    'Compression',
    'Grid',
    'Measured',
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
