"""Conversion of a model in place: convolutions become compressed ones, under the same names and weights."""
from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass, replace

from torch import nn

from mmwcc.inference import integer_skeleton
from mmwcc.layers import CompressedConvMixin, CompressedLayer, is_eligible
from mmwcc.model_tree import (
    CompressionReport,
    all_or_nothing,
    announce,
    compressed_layers,
    convolutions,
    dense_names,
    describe_layer,
    geometry,
    is_plain,
    listed,
    matches,
    names_by_layer,
    no_match,
    obstacle,
    replace_layers,
    unhandled_layers,
)
from mmwcc.quantizers import settle_after_forward
from mmwcc.registry import MODELS

from .config import WAVELET_TYPE, CompressionConfig
from .lean import lean_activations
from .old_checkpoints import watch_predictions
from .only_if_faster import SpeedJudge
from .separate import separate_convs

__all__ = ['compress_model']

_PLACES = ('first', 'last')


def _convert(name: str, conv: nn.Conv2d, config: dict) -> nn.Module:
    kind = config['type']
    layer_type = MODELS.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(layer_type, type) and issubclass(layer_type, CompressedConvMixin)):
        raise ValueError(f'compress_model: {name} cannot become {kind!r}, which is not a compressed convolution. Use '
                         "'mmwcc.WaveletCompressedConv2d' or 'mmwcc.QuantConv2d'.")
    arguments = {key: value for key, value in config.items() if key != 'type'}
    try:
        return layer_type.from_conv2d(conv, **arguments)
    except (TypeError, ValueError) as error:
        raise type(error)(f'compress_model: {name} ({geometry(conv)}) cannot become {kind}: {error}') from error


def compress_model(model: nn.Module, compression: dict, *, verbose: bool = True) -> CompressionReport:
    """Turn the convolutions of ``model`` into compressed ones, in place.

    Every replaced layer keeps its qualified name, its parameter objects, device, training mode,
    hooks and attributes, so that dense checkpoints load with only quantizer keys missing.
    Convolutions that are shared stay shared. Layers that are compressed already, transposed
    convolutions, subclasses of ``nn.Conv2d`` with a forward of their own and convolutions whose
    weight is computed (weight_norm, spectral_norm, pruning, a parametrization) stay. If anything
    fails, the model is as it was.

    Args:
        model: Any module.
        compression: Plain data, see :class:`CompressionConfig`.
        verbose: Whether to print the report. Defaults to True.

    Returns:
        The report: one line a convolution, the learned layers that are no convolutions, and a
        summary. Where nothing is compressed because of rules, names in keep_dense or
        only_if_faster, a warning says so, which is ``report.warning`` too.

    Raises:
        TypeError: If a value of compression is of the wrong kind.
        ValueError: If a key is unknown, a rule or a keep_dense entry matches nothing, a layer cannot become what a
            rule says, the model has no convolution, only_if_faster or lean_activations cannot run
            it, or nothing is compressed although neither rules nor names asked for that.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1))
        >>> pointwise = dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5)
        >>> compress_model(model, dict(pointwise=pointwise), verbose=False).summary()
        '3 convolutions: 1 WaveletCompressedConv2d, 2 dense'
    """
    config = CompressionConfig.parse(compression)
    with all_or_nothing(model):
        separated = config.separate is not None and _separate(model, config, verbose)
        report = _compress(model, config, separated)
        if config.integer is not False:
            kept = config.integer.get('keep_float', ()) if isinstance(config.integer, dict) else ()
            report = integer_skeleton(model, report, kept)
        lean = []
        if config.lean_activations is not None:
            lean = lean_activations(model, **config.lean_activations)
    watch_predictions(model, [layer.name for layer in report if layer.reason == "keep_dense 'last'"], config.keep_dense)
    settle_after_forward(model)
    if report.warning:
        warnings.warn(report.warning, stacklevel=2)
    if verbose:
        announce(f'Compressed {type(model).__name__}:\n{report}')
        if lean:
            announce(f'Activations that keep masks for backward: {len(lean)}')
    return report


def _separate(model: nn.Module, config: CompressionConfig, verbose: bool) -> bool:
    """Split convolutions as the dictionary says, and tell whether there were any to split."""
    # Entries that match nothing yet may name the new layers; what matches nothing then is refused.
    names = convolutions('compress_model', model)
    keep_dense = [entry for entry in config.keep_dense
                  if entry in _PLACES or any(matches(entry, name) for name in names)]
    report = separate_convs(model, **config.separate, keep_dense=keep_dense, verbose=verbose)
    return any(not layer.reason for layer in report)


@dataclass(frozen=True)
class _Decision:
    """What takes the place of a convolution, itself where it stays, and why it stays.

    Attributes:
        layer: The layer.
        reason: Why it stays dense or loses its wavelets, or empty.
        chosen: Whether it stays dense because the user's own rules or names say so.
    """

    layer: nn.Module
    reason: str = ''
    chosen: bool = False


def _compress(model: nn.Module, config: CompressionConfig, separated: bool) -> CompressionReport:
    """Replace the convolutions of a model as the dictionary says."""
    modules = convolutions('compress_model', model)
    names = list(modules)
    for rule in config.rules:
        if not any(rule.matches(name) for name in names):
            raise ValueError(no_match('compress_model', 'rule', rule.pattern, names))
    dense = dense_names('compress_model', model, config.keep_dense, names)
    judge = None if config.only_if_faster is None else SpeedJudge(model, config.only_if_faster)
    decisions = {module: _decide(known, module, config, dense, judge)
                 for module, known in names_by_layer(modules).items()}
    report = CompressionReport(unhandled=unhandled_layers(model))
    for name, module in modules.items():
        decision = decisions[module]
        report.append(describe_layer(name, decision.layer, geometry(module), decision.reason))
    replace_layers(model, {module: decision.layer for module, decision in decisions.items()})
    if not (separated or compressed_layers(model)):
        report.warning = _nothing_compressed(model, report)
        if not any(decision.chosen for decision in decisions.values()):
            raise ValueError(report.warning)
    return report


def _decide(names: list[str], module: nn.Conv2d, config: CompressionConfig, dense: dict[str, str],
            judge: SpeedJudge | None) -> _Decision:
    """Decide what becomes of the convolution of these names."""
    if isinstance(module, CompressedLayer):
        return _Decision(module, 'compressed already')
    kept = [dense[name] for name in names if name in dense]
    if kept:
        return _Decision(module, f'keep_dense {kept[0]!r}', not set(kept) <= set(_PLACES))
    if not is_plain(module):
        return _Decision(module, f'{type(module).__name__} has a forward of its own')
    if obstacle(module):
        return _Decision(module, obstacle(module))
    # A shared layer follows the rules for the first of its names that one speaks of.
    name = next((name for rule in config.rules for name in names if rule.matches(name)), names[0])
    eligible = is_eligible(module.kernel_size, module.padding, module.groups)
    layer_config, reason = config.layer_config(name, eligible), ''
    if layer_config is None:
        by_rule = replace(config, rules=()).layer_config(name, eligible) is not None
        return _Decision(module, 'rule' if by_rule else '', by_rule)
    if judge is not None and eligible and layer_config['type'] == WAVELET_TYPE:
        layer_config, reason = judge.settle(module, layer_config, config.other)
    if layer_config is None:
        return _Decision(module, reason, chosen=True)
    return _Decision(_convert(name, module, layer_config), reason)


def _nothing_compressed(model: nn.Module, report: CompressionReport) -> str:
    """Say that all layers of a model stay, and why."""
    reasons = Counter(layer.reason or 'no pointwise, other or rule compresses it'
                      for layer in report)
    stay = ', '.join(f'{count} x {reason}' for reason, count in reasons.items())
    others = listed(report.unhandled)
    others = f' and with layers that are not compressed: {others}' if others else ''
    return (f'compress_model: compression must change a layer, got {type(model).__name__} with all '
            f'convolutions left dense ({stay}){others}. Let pointwise, other or a rule give them a '
            'layer type and quantizers or a keep_ratio, shorten keep_dense, or build the model '
            'without compression.')
