"""Write and read the stamp that mmwcc leaves in checkpoints, and save checkpoints.

``checkpoint['meta']['mmwcc']`` is plain data, which ``torch.load(weights_only=True)`` reads:

===============  =================================================================================
``version``      version of mmwcc
``compression``  the ``compression`` dictionary of the config, None for a dense model
``layers``       how each compressed layer compresses, by layer name; see ``LayerState.to_dict``
``iter``         the iteration that this state belongs to
``epoch``        the epoch that this state belongs to
``scheduled``    True if ``mmwcc.CompressionScheduleHook`` set the state
``cost``         what ``mmwcc.CostHook`` counted
===============  =================================================================================
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint
from torch import nn

from mmwcc.compressed_config import find_compression
from mmwcc.compression import JUDGED, RECORD, layer_records
from mmwcc.registry import type_name
from mmwcc.version import __version__

__all__ = [
    'carry_stamp',
    'compression_on_record',
    'extend_stamp',
    'final_checkpoint',
    'latest_checkpoint',
    'mark_judged',
    'read_stamp',
    'recorded_layers',
    'save_checkpoint',
    'write_stamp',
]


def read_stamp(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stamp of a checkpoint, or an empty dict if it has none."""
    return (checkpoint.get('meta') or {}).get('mmwcc') or {}


def recorded_layers(checkpoint: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return how the layers of a checkpoint compress, by name; empty if nothing records it.

    The stamp comes first. Without one, the records count that compressed models leave in the
    metadata of the state dictionary, each under its place. Wrappers such as DDP call it 'module'.
    """
    metadata = getattr(checkpoint.get('state_dict', checkpoint), '_metadata', None) or {}
    return read_stamp(checkpoint).get('layers') or {
        f'{place}.{name}'.removeprefix('.').removeprefix('module.'): state
        for place, entries in metadata.items()
        for name, state in (entries.get(RECORD) or {}).items()
    }


def carry_stamp(checkpoint: Any) -> Any:
    """Record in the weights of a checkpoint how its layers compress, where a model can see it.

    A model that loads a checkpoint gets the weights and their metadata, but not the stamp. With an
    empty record, they count as the weights of a dense model.

    Args:
        checkpoint: What a loader of mmengine returned.

    Returns:
        The checkpoint. If it is a bare dictionary of weights, it may be a copy.
    """
    if not isinstance(checkpoint, dict):
        return checkpoint
    weights = checkpoint.get('state_dict', checkpoint)
    if not isinstance(weights, OrderedDict):  # others cannot hold metadata
        weights = OrderedDict(weights)
    _own_metadata(weights)[RECORD] = recorded_layers(checkpoint)
    if 'state_dict' in checkpoint:
        checkpoint['state_dict'] = weights
        return checkpoint
    return weights


def mark_judged(checkpoint: Mapping[str, Any]) -> None:
    """Tell the model that is about to load a checkpoint that it was compared with it already."""
    weights = checkpoint.get('state_dict', checkpoint)
    if isinstance(weights, OrderedDict):
        _own_metadata(weights)[JUDGED] = True


def _own_metadata(weights: Any) -> dict[str, Any]:
    """Return the metadata of the model itself, apart from its modules. It can be written to."""
    if getattr(weights, '_metadata', None) is None:
        weights._metadata = OrderedDict()
    return weights._metadata.setdefault('', {})


def extend_stamp(checkpoint: dict, entries: Mapping[str, Any]) -> None:
    """Add entries to the stamp of a checkpoint. Its other entries stay."""
    checkpoint.setdefault('meta', {}).setdefault('mmwcc', {}).update(entries)


def write_stamp(checkpoint: dict, model: nn.Module, config: Mapping[str, Any]) -> None:
    """Record in a checkpoint how the model compresses.

    Args:
        checkpoint: The checkpoint that is about to be saved.
        model: The model whose weights it holds.
        config: The config of the run. Only ``model`` is read.
    """
    compression, layers = compression_on_record(config), layer_records(model)
    extend_stamp(checkpoint, dict(version=__version__, compression=compression, layers=layers))
    # CompressionScheduleHook, which may run before or after this, knows the iteration and epoch
    # that the state belongs to. Keep what it has written.
    written, meta = read_stamp(checkpoint), checkpoint['meta']
    extend_stamp(checkpoint, {key: written.get(key, meta.get(key)) for key in ('iter', 'epoch')})


def save_checkpoint(
    model: nn.Module, config: Config, path: str | Path, meta: Mapping[str, Any] | None = None
) -> None:
    """Save the weights of a model with its stamp, and its config in a file next to it.

    Args:
        model: The model.
        config: Its config.
        path: File to write, ending in .pth. The config gets the same name, ending in .py. Missing
            folders are created.
        meta: ``meta`` of the checkpoint that the weights come from. Defaults to None.
    """
    path = Path(path)
    checkpoint = dict(meta={**(meta or {})}, state_dict=model.state_dict())
    write_stamp(checkpoint, model, config)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, path)
    config.dump(path.with_suffix('.py'))


def final_checkpoint(config: Config) -> Path:
    """Return the path where mmengine writes the last checkpoint of a training run.

    Args:
        config: A config with ``train_cfg`` and ``work_dir``.
    """
    length = config.train_cfg.get('max_iters')
    name = f'epoch_{config.train_cfg.max_epochs}.pth' if length is None else f'iter_{length}.pth'
    return Path(config.work_dir) / name


def latest_checkpoint(work_dir: str | Path) -> str | None:
    """Return the checkpoint that mmengine would resume in a work folder, or None without one."""
    return find_latest_checkpoint(str(work_dir)) if Path(work_dir).is_dir() else None


def compression_on_record(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the ``compression`` of a config as a stamp holds it, or None for a dense model."""
    model = config.get('model')
    return _plain(find_compression(model)) if isinstance(model, Mapping) else None


def _plain(value: Any) -> Any:
    """Return config data in plain types that ``torch.load(weights_only=True)`` can read."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    return value if value is None or type(value) in (bool, int, float, str) else type_name(value)
