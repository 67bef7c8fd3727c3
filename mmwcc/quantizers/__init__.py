"""Uniform quantizers with one learned parameter, behind one base: learned clip (the paper's) and LSQ."""
from .base import UniformQuantizer
from .learned_clip import LearnedClipActQuantizer, LearnedClipWeightQuantizer
from .lsq import LSQActQuantizer, LSQWeightQuantizer

__all__ = [
    'LSQActQuantizer', 'LSQWeightQuantizer', 'LearnedClipActQuantizer', 'LearnedClipWeightQuantizer',
    'UniformQuantizer'
]
