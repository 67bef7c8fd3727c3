"""Comparison of how a checkpoint and a model compress."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from mmwcc.inference import IntegerLayer
from mmwcc.layers import CompressedLayer
from mmwcc.model_tree import LayerState, compressed_layers, first_names, named_layers, unwrapped

__all__ = ['Comparison', 'compare', 'layer_records']

_QUANTIZER_KEY = re.compile(
    r'^(?P<layer>.*)\.(?P<role>weight_quant|act_quant)\.'
    r'(clip_alpha|initialized|signed)$'
)


@dataclass(frozen=True)
class Comparison:
    """The differences between how a checkpoint and a model compress.

    A layer that a model shares between several places has a single name here, its first.

    Attributes:
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

    layers: Mapping[str, nn.Module]
    in_checkpoint: set[str] = field(default_factory=set)
    only_in_checkpoint: set[str] = field(default_factory=set)
    only_in_model: set[str] = field(default_factory=set)
    integers_only_in_checkpoint: set[str] = field(default_factory=set)
    integers_only_in_model: set[str] = field(default_factory=set)
    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    states: list[tuple[str, str, Any, Any]] = field(default_factory=list)


def compare(
    weights: Mapping[str, Any],
    model: nn.Module,
    recorded: Mapping[str, Mapping[str, Any]] | None = None,
    expected: Mapping[str, LayerState] | None = None,
) -> Comparison:
    """Compare how a checkpoint and a model compress.

    Args:
        weights: The state dictionary of the checkpoint.
        model: The model that is about to load it.
        recorded: How the layers compress as the checkpoint records it, by name. If it is empty, the
            weights are those of a dense model, unless they hold quantizers. Defaults to None:
            nothing is known but the weights, which do not show whether a layer without quantizers
            was compressed.
        expected: The states that the layers of the model should have at the moment the checkpoint
            was saved. Defaults to None: the states that they have now.
    """
    weights = {re.sub(r'^module\.', '', key): value for key, value in weights.items()}
    layers, first = compressed_layers(model), first_names(model)
    integers = _renamed(_integers_of_weights(weights), first)
    theirs = _renamed(_quantizers_of_weights(weights) | set(recorded or ()), first) | integers
    ours = _compressed_names(layers)
    known = bool(recorded) or (recorded is not None and not theirs)
    askable = ours | set(layers) if known else ours
    missing = askable - theirs
    integer_layers = {name for name, layer in layers.items() if isinstance(layer, IntegerLayer)}
    return Comparison(
        layers,
        theirs,
        theirs - askable,
        missing if theirs else missing & set(layers),
        integers - integer_layers,
        integer_layers - integers,
        _different_shapes(layers, weights),
        _different_states(
            expected or {name: LayerState.of(layer) for name, layer in layers.items()},
            recorded or {},
        ),
    )


def layer_records(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Return how each compressed layer compresses, as checkpoints record it, under all its
    names.
    """
    return {
        name: LayerState.of(layer).to_dict()
        for name, layer in named_layers(unwrapped(model), CompressedLayer).items()
    }


def _stored(layer_name: str, layer: nn.Module) -> dict[str, Any]:
    """Return what a checkpoint stores of a layer, by key.

    Unlike ``state_dict``, this calls none of the hooks that users registered for saving.
    """
    found: dict[str, Any] = {}
    for name, module in layer.named_modules(prefix=layer_name, remove_duplicate=False):
        module._save_to_state_dict(found, f'{name}.', keep_vars=True)
    return found


def _renamed(names: Iterable[str], first: Mapping[str, str]) -> set[str]:
    """Return names of layers and quantizers, those of shared layers under their first name."""
    renamed = set()
    for name in names:
        layer, _, role = name.rpartition('.')
        if name in first:
            renamed.add(first[name])
        elif layer in first:  # a quantizer that this model does not have
            renamed.add(f'{first[layer]}.{role}')
        else:
            renamed.add(name)
    return renamed


def _different_shapes(
    layers: Mapping[str, nn.Module], weights: Mapping[str, Any]
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    different = {}
    for name, layer in layers.items():
        for key, value in _stored(name, layer).items():
            ours = tuple(value.shape)
            theirs = tuple(getattr(weights.get(key), 'shape', ours))
            if key == f'{name}.weight' and len(theirs) == 3:
                theirs += (1,)  # kernels of nn.Conv1d, which the layers also load
            if key.endswith('.clip_alpha') and theirs in ((), (1,)):
                # Scalar clips of mmwcc 0.1, or one clip for all channels: quantizers load both.
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
        key: value for name, layer in layers.items() for key, value in _stored(name, layer).items()
    }
    return _quantizers_of_weights(weights) | _integers_of_weights(weights)


def _same(one: Any, other: Any) -> bool:
    # Smooth schedules call cos and pow, and the last bit of those differs between machines.
    if {type(one), type(other)} <= {int, float}:
        return math.isclose(one, other, rel_tol=1e-9)
    return one == other
