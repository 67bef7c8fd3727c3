"""What a compressed model does when a state dictionary is loaded into it, whoever loads it.

A compressed model records in the metadata of its state dictionary how its layers compress. When it
loads one, it compares that record, and the keys, with itself. Loaders of OpenMMLab skip what does
not fit, so without this a dense checkpoint in a compressed model would give a wrong result.

The record travels with ``torch.save`` and with the checkpoints of mmengine. States without it, such
as those of mmwcc 0.1, are judged by their keys alone. Those do not show whether a layer without
quantizers was compressed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from mmwcc.layers import CompressedLayer
from mmwcc.messages import some_of
from mmwcc.model_tree import LAYERS, guard, lift_guards, note_loaded, unwrapped
from mmwcc.quantizers import UniformQuantizer, tolerate_unlearned

from .comparison import Comparison, compare, layer_records
from .old_checkpoints import advice_for

__all__ = [
    'JUDGED',
    'RECORD',
    'allow_dense',
    'dense_model_error',
    'integer_mismatch',
    'refuse_dense_model',
    'state_differences',
    'watch_states',
    'what_it_lacks',
]

RECORD = 'mmwcc'
"""Key of the record in the metadata of the model that is compressed."""

JUDGED = 'mmwcc_judged'
"""Key that marks a state that was compared with the model already, by a hook that knows more."""


def allow_dense(model: nn.Module) -> None:
    """Let ``model`` be evaluated with weights that it was not trained with.

    Otherwise it is an error to evaluate a compressed model with dense weights. Layers whose
    quantizers have not learned a clip then quantize each batch with a clip of its own, and warn.

    Args:
        model: A compressed model, after its weights were loaded.
    """
    lift_guards(model)
    tolerate_unlearned(model)


def watch_states(model: nn.Module) -> None:
    """Let a compressed model record how it compresses, and judge the states that it loads.

    Args:
        model: A compressed model.
    """
    if _record in model._state_dict_hooks.values():
        return
    # Not the public methods of the same purpose, which torch 2.4 does not have.
    model._register_state_dict_hook(_record)
    model._register_load_state_dict_pre_hook(_judge, with_module=True)
    model.register_load_state_dict_post_hook(_note_loaded)


def refuse_dense_model(model: nn.Module, weights: Mapping[str, Any]) -> None:
    """Refuse the weights of a compressed model for a model that compresses nothing.

    Args:
        model: The model that is about to load them.
        weights: A state dictionary, with or without metadata.

    Raises:
        RuntimeError: If the weights are compressed and the model is dense.
    """
    if any(isinstance(module, (CompressedLayer, UniformQuantizer)) for module in model.modules()):
        return
    metadata = getattr(weights, '_metadata', None) or {}
    found = compare(weights, model, metadata.get('', {}).get(RECORD))
    if found.in_checkpoint:
        raise RuntimeError(
            f'{type(unwrapped(model)).__name__}: {dense_model_error(found.in_checkpoint)}'
        )


def dense_model_error(compressed: Iterable[str]) -> str:
    """Return why a dense model cannot load a checkpoint that compresses these layers."""
    return (
        'a compressed checkpoint needs a compressed model, got a dense model and a checkpoint with '
        f'{some_of(compressed)} compressed. Loading would drop the quantizers and the selection. '
        "Build the model with type='mmwcc.CompressedModel' and the compression the checkpoint was "
        'trained with.'
    )


def integer_mismatch(found: Comparison) -> str:
    """Return why a model cannot load a checkpoint whose integer layers are not its own, or ''."""
    if found.integers_only_in_model:
        return (
            'an integer model needs an integer checkpoint, got one without integers in '
            f'{some_of(found.integers_only_in_model)}. Convert it with '
            'tools/deployment/to_integer.py, or leave `integer` out of the compression config.'
        )
    if found.integers_only_in_checkpoint:
        return (
            'an integer checkpoint needs an integer model, got one without integers in '
            f'{some_of(found.integers_only_in_checkpoint)}. Set integer=True in the compression '
            'config, or use the config that was written beside the checkpoint.'
        )
    return ''


def _record(model: nn.Module, state: Mapping, prefix: str, metadata: dict) -> None:
    """Record in the metadata of a state dictionary how the layers compress."""
    metadata[RECORD] = layer_records(model)


def _judge(model: nn.Module, state: Mapping, prefix: str, metadata: Mapping, *_: Any) -> None:
    """Compare a state with the model that is about to load it.

    Raises:
        RuntimeError: If only one of the two has integer layers.
    """
    if metadata.get(JUDGED):
        return
    weights = {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }
    recorded = _fitted(metadata.get(RECORD), weights)
    found = _within(compare(weights, model, recorded), weights)
    loaded = {name: layer for name, layer in found.layers.items() if f'{name}.weight' in weights}
    if not loaded:
        return  # a part of the model that has no compressed layer
    mismatch = integer_mismatch(found)
    if mismatch:
        advice = advice_for(model, found.only_in_checkpoint)
        raise RuntimeError(f'{type(model).__name__}: {advice or mismatch}')
    _put_guards(model, found, loaded)


def _note_loaded(model: nn.Module, incompatible_keys: Any) -> None:
    # This is a module-level function, so that models can be copied and pickled.
    note_loaded(model)


def _fitted(
    recorded: Mapping[str, Any] | None, weights: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """Return a record under the names of the weights, which a loader may have cut or extended.

    Returns:
        The record, without a prefix that all its names have, if that makes them fit; or None if
        its names are not those of the weights, so that nothing is known about these.
    """
    while recorded:
        if any(f'{name}.weight' in weights for name in recorded):
            return recorded
        heads = {name.partition('.')[0] for name in recorded}
        if len(heads) > 1 or not all('.' in name for name in recorded):
            return None
        recorded = {name.partition('.')[2]: state for name, state in recorded.items()}
    return recorded


def _within(found: Comparison, weights: Mapping[str, Any]) -> Comparison:
    """Leave out layers of the model of which the state has nothing, as in a part of a model."""
    absent = {name for name in found.layers if f'{name}.weight' not in weights}
    kept = {
        name
        for name in found.only_in_model
        if name not in absent and name.rpartition('.')[0] not in absent
    }
    return replace(
        found,
        only_in_model=kept,
        integers_only_in_model=found.integers_only_in_model - absent,
    )


def _put_guards(model: nn.Module, found: Comparison, loaded: Mapping[str, nn.Module]) -> None:
    """Guard the layers that must not be evaluated with what was loaded, and free the others."""
    for layer in loaded.values():
        lift_guards(layer)
    owner = type(model).__name__
    if found.only_in_model:
        lacking = {
            name: found.layers[name if name in found.layers else name.rpartition('.')[0]]
            for name in sorted(found.only_in_model)
        }
        guard(
            model,
            lacking,
            f'{owner}: to be evaluated, a compressed model needs weights that were trained or '
            f'calibrated with its compression, got a checkpoint that {what_it_lacks(found)}: '
            f'{LAYERS}. {_remedy(found)}',
        )
    elif found.only_in_checkpoint:
        advice = advice_for(model, found.only_in_checkpoint)
        guard(
            model,
            loaded,
            f'{owner}: to be evaluated, a model must compress what its checkpoint compresses, got '
            f'{some_of(found.only_in_checkpoint)} in the checkpoint only. '
            + (advice or 'Use the compression config it was trained with.'),
        )
    elif found.states:
        consequence = 'The result is not that of the trained model.'
        differing = {name: loaded[name] for name, *_ in found.states if name in loaded}
        guard(
            model,
            differing,
            f'{owner}: {state_differences(found)} {consequence}',
            refuses=False,
        )


def what_it_lacks(found: Comparison) -> str:
    """Describe a checkpoint that lacks what the model compresses, to follow 'a checkpoint that'."""
    if found.in_checkpoint:
        return 'has them dense or not quantized'
    return 'is dense' if _quantizes(found) else 'is dense or does not record its compression'


def _remedy(found: Comparison) -> str:
    allow = 'call mmwcc.compression.allow_dense(model).'
    if found.in_checkpoint or _quantizes(found):
        return (
            'Train the model from it or calibrate it (tools/analysis_tools/calibrate.py) first. To '
            f'evaluate it all the same, {allow}'
        )
    return (
        'Train the model from it first. If it was trained with this compression, as version 0.1 '
        f'could save it without a record, {allow}'
    )


def _quantizes(found: Comparison) -> bool:
    """Tell whether the model has quantizers, whose absence from a checkpoint shows."""
    parts = (part for layer in found.layers.values() for part in layer.modules())
    return any(isinstance(part, UniformQuantizer) for part in parts)


def state_differences(found: Comparison) -> str:
    """Describe how the layers compress in the checkpoint and in the model where that differs."""
    layers: dict[str, list[str]] = {}
    for name, key, theirs, ours in found.states:
        difference = f'{key} {_shown(theirs)} in the checkpoint, {_shown(ours)} in the model'
        layers.setdefault(difference, []).append(name)
    differences = [
        f'{names[0]}: {difference}'
        if len(names) == 1
        else f'{difference}, in {len(names)} layers, such as {names[0]}'
        for difference, names in layers.items()
    ]
    return (
        'the model must compress as the checkpoint records, got '
        f'{some_of(differences, separator="; ")}.'
    )


def _shown(value: Any) -> str:
    if value is None:
        return 'none'
    return f'{value:g}' if isinstance(value, float) else str(value)
