"""Export trained models for use elsewhere: as verified ONNX files, and as published weights."""

from .onnx import EXPORTERS, SELECTIONS, export_onnx
from .parity import Parity
from .prepare import RawOutputs, exportable
from .publish import DROPPED, publish
from .report import ExportReport
from .runtime import (
    ExportError,
    compile_openvino,
    integer_convolutions,
    load_graph,
    open_runner,
    open_session,
)
from .targets import TARGETS, Target
from .tensorrt import check_tensorrt
from .thresholds import calibrate_thresholds, kept_ratios

__all__ = [
    'DROPPED',
    'EXPORTERS',
    'SELECTIONS',
    'TARGETS',
    'ExportError',
    'ExportReport',
    'Parity',
    'RawOutputs',
    'Target',
    'calibrate_thresholds',
    'check_tensorrt',
    'compile_openvino',
    'export_onnx',
    'exportable',
    'integer_convolutions',
    'kept_ratios',
    'load_graph',
    'open_runner',
    'open_session',
    'publish',
]
