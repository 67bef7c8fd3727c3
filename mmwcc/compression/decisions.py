"""What becomes of each convolution and linear layer of a model, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from mmwcc.layers import CompressedLayer, is_eligible
from mmwcc.messages import some_of
from mmwcc.model_tree import (
    dense_names,
    is_plain,
    named_layers,
    names_by_layer,
    no_match,
    obstacle,
    replaceable_layers,
)

from .config import QUANT_TYPE, WAVELET_TYPES, CompressionConfig
from .map_sizes import FixedMaps, fixed_maps
from .only_if_faster import SpeedJudge
from .tiny_maps import too_small
from .token_inputs import off_maps

__all__ = ['PLACES', 'Decision', 'decide', 'judge_maps', 'judge_speed', 'no_wavelets']

PLACES = ('first', 'last')
"""Entries of ``keep_dense`` that stand for a place in the network."""

_SHOWN = 4
_MAPS_UNKNOWN = 'not reached by the run on an image, so its maps are not known'


@dataclass(frozen=True)
class Decision:
    """What happens to a layer, and why.

    Attributes:
        name: The name by which it is looked up in the rules.
        config: Type and arguments of the layer that replaces it, or None if it stays.
        reason: Why it stays dense or does not use wavelets, or empty.
        chosen: Whether it stays dense because the user's own rules or names say so.
        is_tiny: Whether it does not use wavelets because its maps are smaller than a patch.
    """

    name: str
    config: dict | None = None
    reason: str = ''
    chosen: bool = False
    is_tiny: bool = False


def decide(model: nn.Module, config: CompressionConfig) -> dict[nn.Module, Decision]:
    """Decide from the dictionary what happens to each layer that it may replace."""
    modules = replaceable_layers('compress_model', model, config.linear is not None)
    names = list(modules)
    dense = dense_names('compress_model', model, config.keep_dense, names)
    for rule in config.rules:
        if not any(rule.matches(name) for name in names):
            free = [name for name in names if name not in dense]
            message = no_match('compress_model', 'rule', rule.pattern, free)
            if any(map(rule.matches, named_layers(model, nn.Linear))):
                message += ' It matches linear layers, which only the key linear compresses.'
            raise ValueError(message)
    return {
        module: _decision(known, module, config, dense)
        for module, known in names_by_layer(modules).items()
    }


def _decision(
    names: list[str], module: nn.Module, config: CompressionConfig, dense: dict[str, str]
) -> Decision:
    """Decide what happens to the layer with these names."""
    if isinstance(module, CompressedLayer):
        return Decision(names[0], reason='compressed already')
    kept = [dense[name] for name in names if name in dense]
    if kept:
        return Decision(
            names[0], reason=f'keep_dense {kept[0]!r}', chosen=not set(kept) <= set(PLACES)
        )
    if isinstance(module, NonDynamicallyQuantizableLinear):
        return Decision(names[0], reason='nn.MultiheadAttention reads its weight')
    if not is_plain(module):
        return Decision(names[0], reason=f'{type(module).__name__} has a forward of its own')
    if obstacle(module):
        return Decision(names[0], reason=obstacle(module))
    # A shared layer has several names. The first one that a rule matches decides.
    name = next((name for rule in config.rules for name in names if rule.matches(name)), names[0])
    linear = isinstance(module, nn.Linear)
    layer_config = config.layer_config(name, _is_eligible(module), linear)
    if layer_config is not None:
        return Decision(name, layer_config)
    without_rules = replace(config, rules=())
    by_rule = without_rules.layer_config(name, _is_eligible(module), linear) is not None
    return Decision(name, reason='rule' if by_rule else '', chosen=by_rule)


def _is_eligible(conv: Any) -> bool:
    return isinstance(conv, nn.Linear) or is_eligible(conv.kernel_size, conv.padding, conv.groups)


def _wavelet_layers(decisions: dict[nn.Module, Decision]) -> dict[Any, tuple[str, dict]]:
    """Return name and config of each wavelet layer that is to replace a dense one."""
    return {
        conv: (decision.name, decision.config)
        for conv, decision in decisions.items()
        if decision.config is not None
        and decision.config['type'] in WAVELET_TYPES
        and _is_eligible(conv)
    }


def no_wavelets(
    config: CompressionConfig,
    decided: dict[nn.Module, Decision],
    judged: dict[nn.Module, Decision],
) -> str:
    """Return a sentence if wavelets were asked for and no layer uses them in the end, else ''.

    Args:
        config: The dictionary.
        decided: What it asks for.
        judged: What is done.
    """
    asked = any(
        (key or {}).get('type') in WAVELET_TYPES for key in (config.pointwise, config.linear)
    )
    if asked and not any(map(_is_eligible, decided)):
        return (
            'No layer uses wavelets, because there is no 1x1 convolution without padding and '
            'groups. separate=dict() in the compression dictionary makes 1x1 convolutions of '
            'others.'
        )
    if _wavelet_layers(decided) and not _wavelet_layers(judged):
        return '0 layers use wavelets in the end. The notes in the table say why.'
    return ''


def judge_maps(
    model: nn.Module, config: CompressionConfig, decisions: dict[nn.Module, Decision]
) -> tuple[dict[nn.Module, Decision], list[str]]:
    """Drop wavelets where maps are too small or tokens lie on none, unless a rule names the type.

    Linear layers that no run calls stay dense, because another module may read their weights.

    Returns:
        The decisions, and sentences about what could not be found out.
    """
    free = {
        layer: decision
        for layer, decision in decisions.items()
        if decision.config is not None and not config.insists_on_type(decision.name)
    }
    wavelets = {layer: free[layer] for layer in _wavelet_layers(decisions) if layer in free}
    linear = {layer: each for layer, each in free.items() if isinstance(layer, nn.Linear)}
    if not wavelets and not linear:
        return decisions, []
    maps = fixed_maps(model)
    changes = {
        layer: _suiting(layer, decision, maps, config) for layer, decision in wavelets.items()
    }
    if not maps.failure:
        changes |= {
            layer: Decision(decision.name, reason='never called when the model ran on an image')
            for layer, decision in linear.items()
            if layer not in maps.reached
        }
    unseen = {layer: each for layer, each in wavelets.items() if layer not in maps.reached}
    notes = ' '.join(_unknown(maps, unseen))
    return {**decisions, **changes}, [notes] if notes else []


def _suiting(
    layer: nn.Module, decision: Decision, maps: FixedMaps, config: CompressionConfig
) -> Decision:
    """Return the decision on a wavelet layer, changed if a transform does not suit its maps."""
    assert decision.config is not None, 'a wavelet layer'
    levels, is_linear = decision.config.get('levels', 3), isinstance(layer, nn.Linear)
    if is_linear:
        calls = maps.tokens.get(layer)
        unknown = '' if layer in maps.announced else _MAPS_UNKNOWN
        reason = off_maps(*calls, levels) if calls else unknown
    else:
        reason = too_small(maps.sizes.get(layer, ()), levels)
    if not reason:
        return decision
    quantizing = replace(config, other=config.other or dict(type=QUANT_TYPE))
    quantized = quantizing.quantized_config(decision.name, is_linear)
    return Decision(decision.name, quantized, reason, is_tiny=not is_linear)


def _unknown(maps: FixedMaps, unseen: dict[Any, Decision]) -> Iterator[str]:
    """Say how far the sizes of maps depend on what the model could not do."""
    if maps.uncopied:
        yield maps.uncopied
    if not maps.failure or not unseen:
        return
    yield maps.failure
    linear = [each.name for layer, each in unseen.items() if isinstance(layer, nn.Linear)]
    others = [each.name for layer, each in unseen.items() if not isinstance(layer, nn.Linear)]
    if others:
        yield (
            'These layers were not reached and have wavelets even if their maps are smaller than a '
            f'patch: {some_of(others, most=_SHOWN)}. Give those behind global pooling the type '
            'mmwcc.QuantConv2d by a rule.'
        )
    if linear:
        yield (
            'These linear layers were not reached and have wavelets only inside modules that know '
            f'their maps: {some_of(linear, most=_SHOWN)}. Give others that work on maps the type '
            'mmwcc.WaveletCompressedLinear by a rule.'
        )


def judge_speed(
    model: nn.Module, config: CompressionConfig, decisions: dict[nn.Module, Decision]
) -> dict[nn.Module, Decision]:
    """Drop wavelets where they would not make a layer faster, if the dictionary asks for that."""
    if config.only_if_faster is None:
        return decisions
    judge, judged = SpeedJudge(model, config.only_if_faster), dict(decisions)
    for conv, (name, layer) in _wavelet_layers(decisions).items():
        reason = judge.objection(conv, layer)
        if reason:
            quantized = config.quantized_config(name, isinstance(conv, nn.Linear))
            judged[conv] = Decision(name, quantized, reason, chosen=quantized is None)
    return judged
