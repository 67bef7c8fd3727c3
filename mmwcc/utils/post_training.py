"""Prepare to compress a trained network without training: dense config, calibration images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from mmwcc.compressed_config import find_compression, is_compressed, without_compression

from .launch import LaunchError
from .trained import spread_batches

__all__ = ['calibration_batches', 'dense_config']


def dense_config(config: Config) -> tuple[Config, dict]:
    """Remove the compression from a config.

    Args:
        config: A config whose model is built by ``mmwcc.CompressedModel``, alone or with another
            factory.

    Returns:
        The config of the dense model, and the ``compression`` that was removed.

    Raises:
        LaunchError: If the config has no compressed model.
    """
    if not is_compressed(config.get('model', {})):
        raise LaunchError(
            f'{config.filename} has no compressed model. Give a compressed config, or say how to '
            'compress with --compression PRESET.'
        )
    config = Config(config.to_dict(), filename=config.filename)
    compression: Any = find_compression(config.model)  # a ConfigDict
    config.model = without_compression(config.model)
    return config, compression.to_dict()


def calibration_batches(
    config: Config, number: int, batch_size: int = 8, *, progress: str = ''
) -> Iterator[dict]:
    """Yield training images, preprocessed as for testing and evenly spread over the dataset.

    Args:
        config: A config with data loaders for training and testing.
        number: Number of images.
        batch_size: Largest number of images in a batch. An image of another size starts a new
            batch. Defaults to 8.
        progress: As for :func:`spread_batches`. Defaults to ''.

    Raises:
        LaunchError: If the config lacks one of the data loaders, or a dataset is missing or empty.
    """
    for split in ('train', 'test'):
        if config.get(f'{split}_dataloader') is None:
            raise LaunchError(
                f'{config.filename} has no `{split}_dataloader`. Give a config with data.'
            )
    config = Config(config.to_dict(), filename=config.filename)
    pipeline = _inner(config.test_dataloader.dataset).get('pipeline')
    config.train_dataloader.dataset = dataset = _inner(config.train_dataloader.dataset)
    for part in dataset.get('datasets', [dataset]) if pipeline is not None else ():
        part.pipeline = pipeline
    group: dict[str, list] = {}
    for batch in spread_batches(config, number, 'train', progress=progress):
        if group and (
            len(group['inputs']) == batch_size
            or group['inputs'][0].shape != batch['inputs'][0].shape
        ):
            yield group
            group = {}
        group = {key: [*group.get(key, ()), *values] for key, values in batch.items()}
    if group:
        yield group


def _inner(dataset: dict) -> dict:
    """Unwrap a dataset that is repeated, balanced or mixed."""
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset
