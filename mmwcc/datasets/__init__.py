"""Datasets and pipeline transforms.

- Segmentation: synthetic streets with exact labels, which need only mmengine, and CamVid, if
  mmsegmentation is installed.
- Classification: images in one folder for each class, CIFAR-10, and transforms.
- Super-resolution: pairs of small and large images.
- Depth: frames of drives, synthetic ones or KITTI's.
- Detection: the boxes of the synthetic streets, and boxes in the Pascal VOC format, if mmdetection
  is installed.
"""

from importlib.util import find_spec

from mmwcc.registry import DATASETS

from .classification import GaussianNoise, PackClsInputs, PadRandomCrop
from .depth_transforms import (
    DepthColorJitter,
    LoadDepthFrames,
    PackDepthInputs,
    RandomFlipDepthFrames,
    ResizeDepthFrames,
)
from .street.scene import Camera, StreetScene, StreetWorld, render, render_street

__all__ = [
    'Camera',
    'DepthColorJitter',
    'GaussianNoise',
    'LoadDepthFrames',
    'PackClsInputs',
    'PackDepthInputs',
    'PadRandomCrop',
    'RandomFlipDepthFrames',
    'ResizeDepthFrames',
    'StreetScene',
    'StreetWorld',
    'render',
    'render_street',
]

if find_spec('mmengine') is not None:
    from .cifar import CIFAR10
    from .image_folder import ImageFolder
    from .image_pairs import (
        LoadImagePair,
        PackImagePair,
        PairedRandomCrop,
        PairedRandomFlipRotate,
        SuperResolutionDataset,
    )
    from .kitti import KITTIRawDataset, LoadVelodyneDepth
    from .street.sequence import SyntheticStreetSequence
    from .street.synthetic_street import LoadSyntheticStreet, SyntheticStreetDataset

    __all__ += [
        'CIFAR10',
        'ImageFolder',
        'KITTIRawDataset',
        'LoadImagePair',
        'LoadSyntheticStreet',
        'LoadVelodyneDepth',
        'PackImagePair',
        'PairedRandomCrop',
        'PairedRandomFlipRotate',
        'SuperResolutionDataset',
        'SyntheticStreetDataset',
        'SyntheticStreetSequence',
    ]

if find_spec('mmseg') is not None:
    from .camvid import CamVidDataset

    __all__ += ['CamVidDataset']

if find_spec('mmdet') is not None:

    @DATASETS.register_module(name='XMLBoxDataset')
    def build_xml_box_dataset(**config):
        """Build an ``XMLBoxDataset``.

        mmdetection takes seconds to import, so the module with the class is imported only here.
        """
        from .xml_boxes import XMLBoxDataset

        return XMLBoxDataset(**config)
