"""Compression without training: clips from a few batches, and budgets shared among layers."""

from .allocation import Allocation, Candidate, allocate, allocated_compression, find_candidates
from .budget import MeasuredLayers, budget_bops, budget_number, choosable, compressed_cost
from .calibrate import CalibrationReport, calibrate, reestimate_batch_norm
from .choices import Choice, Grid, LayerSensitivity
from .run import run_model
from .sensitivity import measure_sensitivity

__all__ = [
    'Allocation',
    'CalibrationReport',
    'Candidate',
    'Choice',
    'Grid',
    'LayerSensitivity',
    'MeasuredLayers',
    'allocate',
    'allocated_compression',
    'budget_bops',
    'budget_number',
    'calibrate',
    'choosable',
    'compressed_cost',
    'find_candidates',
    'measure_sensitivity',
    'reestimate_batch_norm',
    'run_model',
]
