"""Load a trained network, and some of its images, for tools that inspect it."""

from __future__ import annotations

from collections.abc import Iterator

from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import CheckpointLoader, load_checkpoint
from torch import nn

from mmwcc.checkpoint import read_stamp
from mmwcc.compression import compare
from mmwcc.messages import some_of
from mmwcc.progress import track

from .launch import LaunchError, build_model, check_checkpoint

__all__ = ['load_trained', 'spread_batches']


def load_trained(config: Config, checkpoint: str) -> tuple[nn.Module, dict]:
    """Build the model of a config on the CPU, for one process, and load a checkpoint strictly.

    Args:
        config: A config with a ``model``.
        checkpoint: Path or address of the checkpoint.

    Returns:
        The model in evaluation mode, and the contents of the checkpoint.

    Raises:
        LaunchError: If the config has no ``model``, or the checkpoint is not usable or does not fit
            it.
    """
    check_checkpoint(checkpoint)
    model = revert_sync_batchnorm(build_model(config)).eval()
    try:
        loaded = load_checkpoint(
            model, checkpoint, map_location='cpu', strict=True, logger='silent'
        )
    except RuntimeError as error:
        raise LaunchError(
            f'{checkpoint} does not fit the model of {config.filename}: '
            f'{_misfit(model, checkpoint)}'
        ) from error
    return model, loaded


def _misfit(model: nn.Module, path: str) -> str:
    """Say why a checkpoint does not fit a model, and what to do."""
    checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='silent')
    weights = checkpoint.get('state_dict', checkpoint)
    found = compare(weights, model, read_stamp(checkpoint).get('layers'))
    if found.layers and not found.in_checkpoint:
        return (
            'it is that of a dense model, and this model is compressed. Train it first '
            '(load_from), or calibrate it with tools/analysis_tools/calibrate.py.'
        )
    if found.in_checkpoint and not found.layers:
        return (
            f'it compresses {some_of(sorted(found.in_checkpoint))}, and this model is dense. Give '
            'the config that it was trained with.'
        )
    ours = {key: value.shape for key, value in model.state_dict().items()}
    theirs = {key.removeprefix('module.'): value.shape for key, value in weights.items()}
    parts = {
        'lacks': [key for key in ours if key not in theirs],
        'holds in addition': [key for key in theirs if key not in ours],
        'holds in other shapes': [
            key for key in ours if key in theirs and ours[key] != theirs[key]
        ],
    }
    wrong = ', and '.join(f'{what} {some_of(keys)}' for what, keys in parts.items() if keys)
    return f'it {wrong}. Give the config that it was trained with.'


def spread_batches(
    config: Config, number: int, split: str = 'test', *, progress: str = ''
) -> Iterator[dict]:
    """Yield batches of one image each, evenly spread over a dataset, for ``model.test_step``.

    Args:
        config: A config with a data loader for the split.
        number: Number of images. If the dataset has fewer, all of them are yielded.
        split: 'test', 'val' or 'train', with the pipeline of that split. Defaults to 'test'.
        progress: What is done with the images. If given, stderr says how many of them are done.
            Defaults to ''.

    Raises:
        LaunchError: If the config has no such data loader, or its dataset is missing or empty.
    """
    loader = config.get(f'{split}_dataloader')
    if loader is None:
        raise LaunchError(
            f'{config.filename} has no `{split}_dataloader`. Give a config with data.'
        )
    init_default_scope(config.get('default_scope', 'mmengine'))
    try:
        dataset = DATASETS.build(loader.dataset)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise LaunchError(
            f'The {split} data of {config.filename} is not there: '
            f'{str(error).rstrip(".")}. docs/datasets.md says where to get it.'
        ) from error
    if not len(dataset):
        raise LaunchError(
            f'The {split} data of {config.filename} holds no images. docs/datasets.md says how to '
            'lay it out.'
        )
    number = min(number, len(dataset))
    for place in track(range(number), progress, 'images', verbose=bool(progress)):
        yield pseudo_collate([dataset[place * len(dataset) // number]])
