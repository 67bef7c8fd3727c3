"""Image classification on mmengine, with mmpretrain's conventions."""

from .data_preprocessor import ClsDataPreprocessor
from .heads import CrossEntropyLoss, GlobalAveragePooling, LinearClsHead
from .image_classifier import BaseClassifier, ImageClassifier

__all__ = [
    'BaseClassifier',
    'ClsDataPreprocessor',
    'CrossEntropyLoss',
    'GlobalAveragePooling',
    'ImageClassifier',
    'LinearClsHead',
]
