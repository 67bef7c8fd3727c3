"""Random images with labels, as the data pipelines of the libraries would pack them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

__all__ = ['random_batch']

_CLASS_COUNTS = ('num_classes', 'num_things_classes', 'num_stuff_classes')
_BOXES = 3


def random_batch(library: str, config: Config, size: int, images: int = 2) -> dict[str, list]:
    """Return a batch of random images with labels that the model of a config can be trained on.

    Segmentors get a map of classes and one of edges. Detectors get three boxes and a map of classes
    for each image, and masks or proposals if the config loads these.

    Args:
        library: 'mmseg' or 'mmdet'.
        config: The config.
        size: Height and width of the images.
        images: Number of images. Defaults to 2, because batch normalization behind global pooling
            cannot train on one.
    """
    classes = min(filter(None, _class_counts(config.model)), default=2)
    random = np.random.default_rng(0)
    pack: Any = _segmentation_sample
    if library == 'mmdet':
        pack = partial(
            _detection_sample,
            with_masks=_loads_masks(config),
            with_proposals=_loads(config, 'LoadProposals'),
        )
    inputs = [
        torch.from_numpy(random.integers(0, 256, (3, size, size), dtype=np.uint8))
        for _ in range(images)
    ]
    return dict(inputs=inputs, data_samples=[pack(random, classes, size) for _ in range(images)])


def _class_counts(model: Any) -> Iterator[int]:
    """Yield all numbers of classes in the config of a model that are not 0."""
    for part in _dictionaries(model):
        yield from (part[key] for key in _CLASS_COUNTS if isinstance(part.get(key), int))


def _loads_masks(config: Config) -> bool:
    """Tell whether the pipeline of the training data loads a mask of each object."""
    parts = _dictionaries(config.get('train_dataloader'))
    return _loads(config, 'LoadPanopticAnnotations') or any(part.get('with_mask') for part in parts)


def _loads(config: Config, step: str) -> bool:
    """Tell whether the pipeline of the training data has a step of this type."""
    return any(part.get('type') == step for part in _dictionaries(config.get('train_dataloader')))


def _dictionaries(part: Any) -> Iterator[dict]:
    """Yield all dictionaries of a config."""
    if isinstance(part, dict):
        yield part
        part = list(part.values())
    if isinstance(part, (list, tuple)):
        for item in part:
            yield from _dictionaries(item)


def _facts(size: int) -> dict[str, Any]:
    """Return what a pipeline notes down about an image."""
    shape = (size, size)
    return dict(
        img_id=0,
        img_path='random.png',
        img_shape=shape,
        ori_shape=shape,
        pad_shape=shape,
        batch_input_shape=shape,
        scale_factor=(1.0, 1.0),
        flip=False,
        flip_direction=None,
        border=np.array([0, size, 0, size], dtype=np.float32),  # of the crop of CenterNet
    )


def _class_map(random: np.random.Generator, classes: int, size: int) -> Tensor:
    """Return a map of classes in blocks of 8 pixels."""
    blocks = random.integers(0, classes, (-(-size // 8), -(-size // 8)))
    labels = np.kron(blocks, np.ones((8, 8), dtype=np.int64))[:size, :size]
    return torch.from_numpy(labels)[None]


def _segmentation_sample(random: np.random.Generator, classes: int, size: int) -> Any:
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    labels = _class_map(random, classes, size)
    edges = (labels != labels.roll(1, dims=-1)).long()
    sample = SegDataSample(metainfo=_facts(size))
    sample.gt_sem_seg = PixelData(data=labels)
    sample.gt_edge_map = PixelData(data=edges)
    return sample


def _detection_sample(
    random: np.random.Generator,
    classes: int,
    size: int,
    with_masks: bool,
    with_proposals: bool,
) -> Any:
    from mmdet.structures import DetDataSample
    from mmdet.structures.bbox import HorizontalBoxes
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData, PixelData

    corners = random.integers(0, size // 2, (_BOXES, 2))
    sides = random.integers(size // 4, size // 2, (_BOXES, 2))
    boxes = np.concatenate([corners, corners + sides], axis=1)
    sample = DetDataSample(metainfo=_facts(size))
    sample.gt_instances = InstanceData(
        bboxes=HorizontalBoxes(torch.from_numpy(boxes).float()),
        labels=torch.from_numpy(random.integers(0, classes, _BOXES)),
    )
    if with_masks:
        masks = np.zeros((_BOXES, size, size), dtype=np.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
            mask[top:bottom, left:right] = 1
        sample.gt_instances.masks = BitmapMasks(masks, size, size)
    if with_proposals:
        sample.proposals = InstanceData(
            bboxes=sample.gt_instances.bboxes.tensor.clone(), scores=torch.ones(_BOXES)
        )
    sample.ignored_instances = InstanceData(bboxes=HorizontalBoxes(torch.empty(0, 4)))
    sample.gt_sem_seg = PixelData(sem_seg=_class_map(random, classes, size))
    return sample
