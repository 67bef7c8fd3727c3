"""Datasets: synthetic streets with exact labels (mmengine only), and CamVid where mmsegmentation is installed.

For classification: pictures in one folder for each class, CIFAR-10, and steps of pipelines.
"""
from importlib.util import find_spec

from .classification import GaussianNoise, PackClsInputs, PadRandomCrop
from .street_scene import Camera, StreetScene, StreetWorld, render, render_street

__all__ = ['Camera', 'GaussianNoise', 'PackClsInputs', 'PadRandomCrop', 'StreetScene', 'StreetWorld', 'render',
           'render_street']

if find_spec('mmengine') is not None:
    from .cifar import CIFAR10
    from .image_folder import ImageFolder
    from .synthetic_street import LoadSyntheticStreet, SyntheticStreetDataset
    __all__ += ['CIFAR10', 'ImageFolder', 'LoadSyntheticStreet', 'SyntheticStreetDataset']

if find_spec('mmseg') is not None:
    from .camvid import CamVidDataset
    __all__ += ['CamVidDataset']
