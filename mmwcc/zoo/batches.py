"""Random images with labels, as the data pipelines of the libraries would pack them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ['random_batch']

_CLASS_COUNTS = ('num_classes', 'num_things_classes', 'num_stuff_classes')
_BOXES = 3


def random_batch(library: str, model: Any, size: int, images: int = 2) -> dict[str, list]:
    """Return a batch of random images with labels that a model can be trained on.

    Segmentors get a map of classes and one of edges, detectors three boxes with masks and a map of
    classes for each image.

    Args:
        library: 'mmseg' or 'mmdet'.
        model: The config of the model, which tells the number of classes.
        size: Height and width of the images.
        images: Number of images. Defaults to 2, because batch normalization behind global pooling
            cannot train on one.
    """
    classes = min(_class_counts(model), default=2)
    random = np.random.default_rng(0)
    pack = dict(mmseg=_segmentation_sample, mmdet=_detection_sample)[library]
    inputs = [
        torch.from_numpy(random.integers(0, 256, (3, size, size), dtype=np.uint8))
        for _ in range(images)
    ]
    return dict(inputs=inputs, data_samples=[pack(random, classes, size) for _ in range(images)])


def _class_counts(part: Any) -> Iterator[int]:
    """Yield all numbers of classes in a config that are not 0."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key in _CLASS_COUNTS and isinstance(value, int) and value:
                yield value
            else:
                yield from _class_counts(value)
    elif isinstance(part, (list, tuple)):
        for item in part:
            yield from _class_counts(item)


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


def _detection_sample(random: np.random.Generator, classes: int, size: int) -> Any:
    from mmdet.structures import DetDataSample
    from mmdet.structures.bbox import HorizontalBoxes
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData, PixelData

    corners = random.integers(0, size // 2, (_BOXES, 2))
    sides = random.integers(size // 4, size // 2, (_BOXES, 2))
    boxes = np.concatenate([corners, corners + sides], axis=1)
    masks = np.zeros((_BOXES, size, size), dtype=np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = 1
    sample = DetDataSample(metainfo=_facts(size))
    sample.gt_instances = InstanceData(
        bboxes=HorizontalBoxes(torch.from_numpy(boxes).float()),
        labels=torch.from_numpy(random.integers(0, classes, _BOXES)),
        masks=BitmapMasks(masks, size, size),
    )
    sample.ignored_instances = InstanceData(bboxes=HorizontalBoxes(torch.empty(0, 4)))
    sample.gt_sem_seg = PixelData(sem_seg=_class_map(random, classes, size))
    return sample
