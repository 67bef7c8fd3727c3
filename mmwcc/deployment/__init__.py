"""Export trained models for use elsewhere: as verified ONNX files, and as published weights."""

from .onnx import EXPORTERS, SELECTIONS, export_onnx
from .parity import Parity
from .prepare import RawOutputs, exportable
from .publish import DROPPED, publish
from .report import ExportReport
from .runtime import ExportError, open_session
from .thresholds import calibrate_thresholds, kept_ratios

__all__ = [
    'DROPPED',
    'EXPORTERS',
    'SELECTIONS',
    'ExportError',
    'ExportReport',
    'Parity',
    'RawOutputs',
    'calibrate_thresholds',
    'export_onnx',
    'exportable',
    'kept_ratios',
    'open_session',
    'publish',
]
