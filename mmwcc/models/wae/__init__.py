"""The wavelet-like auto-encoder, the classifiers and front-ends built on it, and the baselines."""

from .auto_encoder import WAE
from .backbone import WAEBackbone
from .classifier import WAEClassifier
from .coders import WAEEncoder
from .decompositions import ResizeDecomposition, WaveletDecomposition
from .factory import WAEModel

__all__ = [
    'ResizeDecomposition',
    'WAE',
    'WAEBackbone',
    'WAEClassifier',
    'WAEEncoder',
    'WAEModel',
    'WaveletDecomposition',
]
