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
from .depth import DepthDataPreprocessor, DepthDecoder, Monodepth2, PoseNetwork
from .wae import (
    WAE,
    ResizeDecomposition,
    WAEBackbone,
    WAEClassifier,
    WAEEncoder,
    WAEModel,
    WaveletDecomposition,
)

__all__ = [
    'BaseClassifier',
    'ClsDataPreprocessor',
    'CompressedModel',
    'CrossEntropyLoss',
    'DepthDataPreprocessor',
    'DepthDecoder',
    'GlobalAveragePooling',
    'ImageClassifier',
    'LinearClsHead',
    'Monodepth2',
    'PoseNetwork',
    'ResizeDecomposition',
    'WAE',
    'WAEBackbone',
    'WAEClassifier',
    'WAEEncoder',
    'WAEModel',
    'WaveletDecomposition',
]

if find_spec('mmcv') is not None:
    from .backbones import VGG
    from .detection import BiFPN
    from .super_resolution import EDSR, SRDataPreprocessor, SuperResolver
    from .waveletnet import WaveletNet, WaveletNetCifar

    __all__ += [
        'BiFPN',
        'EDSR',
        'SRDataPreprocessor',
        'SuperResolver',
        'VGG',
        'WaveletNet',
        'WaveletNetCifar',
    ]
