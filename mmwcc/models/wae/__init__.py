"""The wavelet-like auto-encoder: itself, classifiers and front-ends on it, and what it is compared with."""
from .auto_encoder import WAE, WAEEncoder
from .backbone import WAEBackbone
from .classifier import WAEClassifier
from .decompositions import ResizeDecomposition, WaveletDecomposition
from .factory import WAEModel

__all__ = ['ResizeDecomposition', 'WAE', 'WAEBackbone', 'WAEClassifier', 'WAEEncoder', 'WAEModel',
           'WaveletDecomposition']
