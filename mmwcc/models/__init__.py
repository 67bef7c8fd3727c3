"""Registered models."""
from importlib.util import find_spec

from .classifiers import (
    BaseClassifier,
    ClsDataPreprocessor,
    CrossEntropyLoss,
    GlobalAveragePooling,
    ImageClassifier,
    LinearClsHead,
)
from .compressed import CompressedModel
from .wae import WAE, ResizeDecomposition, WAEBackbone, WAEClassifier, WAEEncoder, WAEModel, WaveletDecomposition

__all__ = ['BaseClassifier', 'ClsDataPreprocessor', 'CompressedModel', 'CrossEntropyLoss', 'GlobalAveragePooling',
           'ImageClassifier', 'LinearClsHead', 'ResizeDecomposition', 'WAE', 'WAEBackbone', 'WAEClassifier',
           'WAEEncoder', 'WAEModel', 'WaveletDecomposition']

if find_spec('mmcv') is not None:
    from .backbones import VGG
    from .waveletnet import WaveletNet, WaveletNetCifar
    __all__ += ['VGG', 'WaveletNet', 'WaveletNetCifar']
