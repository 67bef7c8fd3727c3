"""Compression of a model: the config, the conversion, and schedules."""

from importlib import import_module

from .config import QUANT_TYPE, CompressionConfig, Rule
from .convert import compress_model
from .gain import Gain, expected_gain
from .lean import lean_activations
from .old_checkpoints import advice_for
from .schedule import QUANTITIES, Schedule
from .schedule_config import build_schedule
from .separate import SeparatedLayer, SeparationReport, separate_convs

__all__ = [
    'QUANTITIES',
    'QUANT_TYPE',
    'CompressionConfig',
    'Gain',
    'Rule',
    'Schedule',
    'SeparatedLayer',
    'SeparationReport',
    'advice_for',
    'build_schedule',
    'compress_model',
    'expected_gain',
    'lean_activations',
    'separate_convs',
]

_NEXT_STEPS = dict(calibrate='mmwcc.post_training', to_integer='mmwcc.inference')


def __getattr__(name: str):
    # Most programs call these functions next, so they can be imported from here too. They are
    # imported on first use, because post_training itself imports this package.
    if name in _NEXT_STEPS:
        return getattr(import_module(_NEXT_STEPS[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
