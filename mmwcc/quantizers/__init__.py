"""Uniform quantizers with learned clips, all on one base: the paper's, LSQ and PACT."""

from .base import UniformQuantizer
from .calibration import CALIBRATIONS, choose_clip, measure
from .energy import EnergyActQuantizer
from .granularity import CHANNEL, LAYER, WIDTH, Granularity
from .learned_clip import LearnedClipActQuantizer, LearnedClipWeightQuantizer
from .lsq import LSQActQuantizer, LSQWeightQuantizer
from .pact import PACTActQuantizer
from .roles import ROLES, ActQuantizer, WeightQuantizer
from .settling import is_settling, settle, settle_after_forward, tolerate_unlearned
from .state import COEFFICIENTS, stored_code
from .upgrade import upgrade_optimizer_state

__all__ = [
    'CALIBRATIONS',
    'CHANNEL',
    'COEFFICIENTS',
    'LAYER',
    'ROLES',
    'WIDTH',
    'ActQuantizer',
    'EnergyActQuantizer',
    'Granularity',
    'LSQActQuantizer',
    'LSQWeightQuantizer',
    'LearnedClipActQuantizer',
    'LearnedClipWeightQuantizer',
    'PACTActQuantizer',
    'UniformQuantizer',
    'WeightQuantizer',
    'choose_clip',
    'is_settling',
    'measure',
    'settle',
    'settle_after_forward',
    'stored_code',
    'tolerate_unlearned',
    'upgrade_optimizer_state',
]
