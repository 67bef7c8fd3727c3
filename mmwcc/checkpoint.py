"""Write, read and compare the stamp that mmwcc leaves in checkpoints, and save checkpoints.

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

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint
from torch import nn

from mmwcc.compressed_config import find_compression
from mmwcc.inference import IntegerLayer
from mmwcc.model_tree import LayerState, compressed_layers
from mmwcc.registry import type_name
from mmwcc.version import __version__

__all__ = [
    'Comparison',
    'compare',
    'extend_stamp',
    'final_checkpoint',
    'latest_checkpoint',
    'read_stamp',
    'save_checkpoint',
    'write_stamp',
]

_QUANTIZER_KEY = re.compile(
    r'^(?P<layer>.*)\.(?P<role>weight_quant|act_quant)\.'
    r'(clip_alpha|initialized|signed)$'
)


def read_stamp(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stamp of a checkpoint, or an empty dict if it has none."""
    return (checkpoint.get('meta') or {}).get('mmwcc') or {}


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
    settings = config.get('model')
    compression = _plain(find_compression(settings)) if isinstance(settings, Mapping) else None
    layers = {
        name: LayerState.of(layer).to_dict() for name, layer in compressed_layers(model).items()
    }
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


@dataclass(frozen=True)
class Comparison:
    """The differences between how a checkpoint and a model compress.

    Attributes:
        stamp: The stamp of the checkpoint.
        layers: The compressed layers of the model.
        in_checkpoint: Names of all layers and quantizers that the checkpoint compresses.
        only_in_checkpoint: Those of them that the model does not compress.
        only_in_model: What the model compresses and the checkpoint does not.
        integers_only_in_checkpoint: Layers that are integer layers in the checkpoint but not in the
            model.
        integers_only_in_model: Layers that are integer layers in the model but not in the
            checkpoint.
        shapes: Parameters of compressed layers whose shapes differ: the shape in the checkpoint and
            the shape in the model, by key.
        states: Differences in how a layer compresses: the name of the layer, the key, the value in
            the checkpoint and the value in the model. A value is None where that side has none.
    """

    stamp: Mapping[str, Any]
    layers: Mapping[str, nn.Module]
    in_checkpoint: set[str] = field(default_factory=set)
    only_in_checkpoint: set[str] = field(default_factory=set)
    only_in_model: set[str] = field(default_factory=set)
    integers_only_in_checkpoint: set[str] = field(default_factory=set)
    integers_only_in_model: set[str] = field(default_factory=set)
    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    states: list[tuple[str, str, Any, Any]] = field(default_factory=list)


def compare(
    checkpoint: Mapping[str, Any],
    model: nn.Module,
    expected: Mapping[str, LayerState] | None = None,
) -> Comparison:
    """Compare how a checkpoint and a model compress.

    Args:
        checkpoint: A checkpoint, with or without a stamp, or a state_dict.
        model: The model that is about to load it.
        expected: The states that the layers of the model should have at the moment the checkpoint
            was saved. Defaults to None: the states that they have now.
    """
    layers, record = compressed_layers(model), read_stamp(checkpoint)
    weights = {
        re.sub(r'^module\.', '', key): value
        for key, value in checkpoint.get('state_dict', checkpoint).items()
    }
    recorded = record.get('layers')
    integers = _integers_of_weights(weights)
    theirs = _quantizers_of_weights(weights) | integers | set(recorded or ())
    ours = _compressed_names(layers)
    # The weights of a checkpoint without a stamp still show which quantizers it has. They do not
    # show which layers without a quantizer were compressed.
    askable = ours | set(layers) if recorded is not None or not theirs else ours
    integer_layers = {name for name, layer in layers.items() if isinstance(layer, IntegerLayer)}
    expected = expected or {name: LayerState.of(layer) for name, layer in layers.items()}
    return Comparison(
        record,
        layers,
        theirs,
        theirs - askable,
        askable - theirs if theirs else askable & set(layers),
        integers - integer_layers,
        integer_layers - integers,
        _different_shapes(layers, weights),
        _different_states(expected, recorded or {}),
    )


def _different_shapes(
    layers: Mapping[str, nn.Module], weights: Mapping[str, Any]
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    different = {}
    for name, layer in layers.items():
        for key, value in layer.state_dict(prefix=f'{name}.').items():
            ours = tuple(value.shape)
            theirs = tuple(getattr(weights.get(key), 'shape', ours))
            if key == f'{name}.weight' and len(theirs) == 3:
                theirs += (1,)  # kernels of nn.Conv1d, which the layers also load
            if key.endswith('.clip_alpha') and theirs in ((), (1,)):
                # Scalar clips of before this release, or one clip for all channels: quantizers load
                # both.
                theirs = ours
            if theirs != ours:
                different[key] = theirs, ours
    return different


def _different_states(
    expected: Mapping[str, LayerState], recorded: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, str, Any, Any]]:
    found = []
    for name, state in expected.items():
        if name in recorded:
            ours, theirs = state.to_dict(), recorded[name]
            found += [
                (name, key, theirs.get(key), ours.get(key))
                for key in dict.fromkeys([*ours, *theirs])
                if not _same(theirs.get(key), ours.get(key))
            ]
    return found


def _quantizers_of_weights(weights: Iterable[str]) -> set[str]:
    """Return the names of quantizers that have weights, and of their layers."""
    matches = [match for match in map(_QUANTIZER_KEY.match, weights) if match]
    return {
        name for match in matches for name in (match['layer'], f'{match["layer"]}.{match["role"]}')
    }


def _integers_of_weights(weights: Mapping[str, Any]) -> set[str]:
    """Return the names of the integer layers that have weights."""
    names = {key.removesuffix('.grid') for key in weights if key.endswith('.grid')}
    return {name for name in names if f'{name}.scale' in weights and f'{name}.step' in weights}


def _compressed_names(layers: Mapping[str, nn.Module]) -> set[str]:
    """Return the names of the quantizers and integer layers among ``layers``, as in the weights."""
    weights = {
        key: value
        for name, layer in layers.items()
        for key, value in layer.state_dict(prefix=f'{name}.').items()
    }
    return _quantizers_of_weights(weights) | _integers_of_weights(weights)


def _plain(value: Any) -> Any:
    """Return config data in plain types that ``torch.load(weights_only=True)`` can read."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    return value if value is None or type(value) in (bool, int, float, str) else type_name(value)


def _same(one: Any, other: Any) -> bool:
    # Smooth schedules call cos and pow, and the last bit of those differs between machines.
    if {type(one), type(other)} <= {int, float}:
        return math.isclose(one, other, rel_tol=1e-9)
    return one == other
