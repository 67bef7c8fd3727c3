"""The size of the images that a config is used with, as the network sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config

from mmwcc.registry import type_name

__all__ = ['image_shape', 'input_size']

Size = tuple[int, int]


def image_shape(config: Config, shape: Sequence[int] | None = None) -> tuple[int, ...] | None:
    """Return the requested shape, or else the size of the images that a config is used with.

    Args:
        config: The config.
        shape: Height and width, one number for a square, or channels, height and width. Defaults to
            None: ``crop_size`` of the config, or else :func:`input_size`.

    Returns:
        The shape, or None if nothing tells it.

    Example:
        >>> image_shape(Config(dict(crop_size=(64, 96)))), image_shape(Config(), [64])
        ((64, 96), (64, 64))
    """
    shape = shape or config.get('crop_size') or input_size(config)
    if shape is None:
        return None
    return tuple(shape) * 2 if len(shape) == 1 else tuple(shape)


def input_size(config: Config) -> Size | None:
    """Return the (height, width) of the images that a network is tested with, or None if unknown.

    This is ``img_scale`` of the test dataset, the last ``Resize`` of its pipeline, or the size of
    the data preprocessor, in this order, with what pads it: each ``Pad`` that follows in the
    pipeline, and the data preprocessor.

    Example:
        >>> pipeline = [dict(type='Resize', scale=(320, 240)), dict(type='Pad', size_divisor=32)]
        >>> input_size(Config(dict(test_dataloader=dict(dataset=dict(pipeline=pipeline)))))
        (256, 320)
    """
    dataset = (config.get('test_dataloader') or config.get('val_dataloader') or {}).get(
        'dataset', {}
    )
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    model = config.get('model') or {}
    preprocessor = model.get('data_preprocessor') or config.get('data_preprocessor') or {}
    size = _loaded_size(dataset)
    if size is not None:
        return _in_batch(size, preprocessor)
    own: Any = preprocessor.get('size')
    return (own[0], own[1]) if _is_pair(own) else None


def _loaded_size(dataset: Mapping[str, Any]) -> Size | None:
    """Return the size of the images that come out of the pipeline of a dataset, if it is known."""
    scale: Any = dataset.get('img_scale')
    fixed = _is_pair(scale)
    size: Size | None = (scale[1], scale[0]) if fixed else None
    for step in dataset.get('pipeline', ()):
        name = type_name(step.get('type')).rpartition('.')[2]
        if name.endswith('Resize') and _is_pair(step.get('scale')) and not fixed:
            size = step['scale'][1], step['scale'][0]
        elif name == 'ResizeToMultiple' and size is not None:
            size = _to_multiple(size, step.get('size_divisor', 32))
        elif name == 'Pad' and size is not None:
            size = _padded_by_transform(size, step)
    return size


def _padded_by_transform(size: Size, pad: Mapping[str, Any]) -> Size:
    """Return the size that mmcv's ``Pad`` makes of another one."""
    if pad.get('pad_to_square'):
        size = (max(size), max(size))
    target: Any = pad.get('size')
    if _is_pair(target):
        return target[1], target[0]
    return _to_multiple(size, pad.get('size_divisor'))


def _in_batch(size: Size, preprocessor: Mapping[str, Any]) -> Size:
    """Return the size that a data preprocessor makes of an image in testing.

    Those of mmdetection have ``pad_size_divisor``, those of mmsegmentation ``test_cfg``. What they
    do in training alone is left out.
    """
    testing = preprocessor.get('test_cfg') or {}
    target: Any = testing.get('size')
    if _is_pair(target):
        size = max(size[0], target[0]), max(size[1], target[1])
    return _to_multiple(size, testing.get('size_divisor') or preprocessor.get('pad_size_divisor'))


def _to_multiple(size: Size, divisor: int | None) -> Size:
    if not divisor:
        return size
    return -(-size[0] // divisor) * divisor, -(-size[1] // divisor) * divisor


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and all(isinstance(side, int) for side in value)
    )
