"""What becomes of each convolution of a model, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import nn

from mmwcc.layers import CompressedLayer, is_eligible
from mmwcc.messages import some_of
from mmwcc.model_tree import (
    convolutions,
    dense_names,
    is_plain,
    names_by_layer,
    no_match,
    obstacle,
)

from .config import QUANT_TYPE, WAVELET_TYPE, CompressionConfig
from .map_sizes import FixedMaps, fixed_maps
from .only_if_faster import SpeedJudge
from .tiny_maps import too_small

__all__ = ['PLACES', 'Decision', 'decide', 'judge_maps', 'judge_speed', 'no_wavelets']

PLACES = ('first', 'last')
"""Entries of ``keep_dense`` that stand for a place in the network."""

_SHOWN = 4


@dataclass(frozen=True)
class Decision:
    """What happens to a convolution, and why.

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


def decide(model: nn.Module, config: CompressionConfig) -> dict[nn.Conv2d, Decision]:
    """Decide from the dictionary what happens to each convolution."""
    modules = convolutions('compress_model', model)
    names = list(modules)
    dense = dense_names('compress_model', model, config.keep_dense, names)
    for rule in config.rules:
        if not any(rule.matches(name) for name in names):
            free = [name for name in names if name not in dense]
            raise ValueError(no_match('compress_model', 'rule', rule.pattern, free))
    return {
        module: _decision(known, module, config, dense)
        for module, known in names_by_layer(modules).items()
    }


def _decision(
    names: list[str], module: nn.Conv2d, config: CompressionConfig, dense: dict[str, str]
) -> Decision:
    """Decide what happens to the convolution with these names."""
    if isinstance(module, CompressedLayer):
        return Decision(names[0], reason='compressed already')
    kept = [dense[name] for name in names if name in dense]
    if kept:
        return Decision(
            names[0], reason=f'keep_dense {kept[0]!r}', chosen=not set(kept) <= set(PLACES)
        )
    if not is_plain(module):
        return Decision(names[0], reason=f'{type(module).__name__} has a forward of its own')
    if obstacle(module):
        return Decision(names[0], reason=obstacle(module))
    # A shared layer has several names. The first one that a rule matches decides.
    name = next((name for rule in config.rules for name in names if rule.matches(name)), names[0])
    layer_config = config.layer_config(name, _is_eligible(module))
    if layer_config is not None:
        return Decision(name, layer_config)
    by_rule = replace(config, rules=()).layer_config(name, _is_eligible(module)) is not None
    return Decision(name, reason='rule' if by_rule else '', chosen=by_rule)


def _is_eligible(conv: nn.Conv2d) -> bool:
    return is_eligible(conv.kernel_size, conv.padding, conv.groups)


def _wavelet_layers(decisions: dict[nn.Conv2d, Decision]) -> dict[nn.Conv2d, tuple[str, dict]]:
    """Return name and config of each wavelet layer that is to replace a convolution."""
    return {
        conv: (decision.name, decision.config)
        for conv, decision in decisions.items()
        if decision.config is not None
        and decision.config['type'] == WAVELET_TYPE
        and _is_eligible(conv)
    }


def no_wavelets(
    config: CompressionConfig,
    decided: dict[nn.Conv2d, Decision],
    judged: dict[nn.Conv2d, Decision],
) -> str:
    """Return a sentence if wavelets were asked for and no layer uses them in the end, else ''.

    Args:
        config: The dictionary.
        decided: What it asks for.
        judged: What is done.
    """
    asked = (config.pointwise or {}).get('type') == WAVELET_TYPE
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
    model: nn.Module, config: CompressionConfig, decisions: dict[nn.Conv2d, Decision]
) -> tuple[dict[nn.Conv2d, Decision], list[str]]:
    """Drop wavelets where maps are smaller than a patch, unless a rule names the type.

    Returns:
        The decisions, and sentences about what could not be found out.
    """
    wavelets = {
        conv: (name, layer)
        for conv, (name, layer) in _wavelet_layers(decisions).items()
        if not config.insists_on_type(name)
    }
    if not wavelets:
        return decisions, []
    maps, judged = fixed_maps(model), dict(decisions)
    quantizing = replace(config, other=config.other or dict(type=QUANT_TYPE))
    for conv, (name, layer) in wavelets.items():
        reason = too_small(maps.sizes.get(conv, ()), layer.get('levels', 3))
        if reason:
            quantized = quantizing.quantized_config(name)
            judged[conv] = Decision(name, quantized, reason, is_tiny=True)
    names = [name for conv, (name, _) in wavelets.items() if conv not in maps.reached]
    return judged, list(_unknown(maps, names))


def _unknown(maps: FixedMaps, unseen: list[str]) -> Iterator[str]:
    """Say how far the sizes of maps depend on what the model could not do."""
    if maps.uncopied:
        yield maps.uncopied
    if maps.failure and unseen:
        yield (
            f'{maps.failure} These layers were not reached and have wavelets even if their maps '
            f'are smaller than a patch: {some_of(unseen, most=_SHOWN)}. Give those behind '
            'global pooling the type mmwcc.QuantConv2d by a rule.'
        )


def judge_speed(
    model: nn.Module, config: CompressionConfig, decisions: dict[nn.Conv2d, Decision]
) -> dict[nn.Conv2d, Decision]:
    """Drop wavelets where they would not make a layer faster, if the dictionary asks for that."""
    if config.only_if_faster is None:
        return decisions
    judge, judged = SpeedJudge(model, config.only_if_faster), dict(decisions)
    for conv, (name, layer) in _wavelet_layers(decisions).items():
        reason = judge.objection(conv, layer)
        if reason:
            quantized = config.quantized_config(name)
            judged[conv] = Decision(name, quantized, reason, chosen=quantized is None)
    return judged
