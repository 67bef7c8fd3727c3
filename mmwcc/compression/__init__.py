"""Compression of a model: the config, the conversion, and schedules."""

from importlib import import_module

from .comparison import Comparison, compare, layer_records
from .config import QUANT_TYPE, CompressionConfig
from .convert import NothingCompressed, compress_model
from .gain import Gain, expected_gain, layer_kind
from .lean import lean_activations
from .loading import (
    JUDGED,
    RECORD,
    allow_dense,
    dense_model_error,
    integer_mismatch,
    refuse_dense_model,
    state_differences,
    watch_states,
    what_it_lacks,
)
from .old_checkpoints import advice_for
from .rule import Rule
from .schedule import QUANTITIES, Schedule
from .schedule_config import build_schedule
from .separate import SeparatedLayer, SeparationReport, separate_convs

__all__ = [
    'JUDGED',
    'QUANTITIES',
    'QUANT_TYPE',
    'RECORD',
    'Comparison',
    'CompressionConfig',
    'Gain',
    'NothingCompressed',
    'Rule',
    'Schedule',
    'SeparatedLayer',
    'SeparationReport',
    'advice_for',
    'allow_dense',
    'build_schedule',
    'compare',
    'compress_model',
    'dense_model_error',
    'expected_gain',
    'integer_mismatch',
    'layer_kind',
    'layer_records',
    'lean_activations',
    'refuse_dense_model',
    'separate_convs',
    'state_differences',
    'watch_states',
    'what_it_lacks',
]

_NEXT_STEPS = dict(calibrate='mmwcc.post_training', to_integer='mmwcc.inference')


def __getattr__(name: str):
    # Most programs call these functions next, so they can be imported from here too. They are
    # imported on first use, because post_training itself imports this package.
    if name in _NEXT_STEPS:
        return getattr(import_module(_NEXT_STEPS[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
