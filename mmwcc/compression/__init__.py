"""What turns a model: the compression config, the conversion, and schedules."""
from importlib import import_module

from .config import QUANT_TYPE, CompressionConfig, Rule
from .convert import compress_model
from .lean import lean_activations
from .old_checkpoints import advice_for
from .schedule import QUANTITIES, Schedule, build_schedule
from .separate import SeparatedLayer, SeparationReport, separate_convs

__all__ = [
    'QUANTITIES', 'QUANT_TYPE', 'CompressionConfig', 'Rule', 'Schedule', 'SeparatedLayer',
    'SeparationReport', 'advice_for', 'build_schedule', 'compress_model', 'lean_activations',
    'separate_convs',
]

_NEXT_STEPS = dict(calibrate='mmwcc.post_training', to_integer='mmwcc.inference')


def __getattr__(name: str):
    # What most programs do next is found here too. Imported when asked for, because post_training
    # stands on this room.
    if name in _NEXT_STEPS:
        return getattr(import_module(_NEXT_STEPS[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
