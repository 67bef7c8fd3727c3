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
        separated = _separate(model, config, verbose)
        decisions = _decide(model, config)
        decisions = _judge_speed(model, config, decisions)
        report = _convert(model, decisions)
        report.warning = _check_changed(model, report, decisions, separated)
        report = _put_integers(model, config, report)
        lean = _make_lean(model, config)
    watch_predictions(model, [layer.name for layer in report if layer.reason == "keep_dense 'last'"], config.keep_dense)
    settle_after_forward(model)
    if report.warning:
        warnings.warn(report.warning, stacklevel=2)
    if verbose:
        announce(f'Compressed {type(model).__name__}:\n{report}')
        if lean:
            announce(f'Activations that keep masks for backward: {len(lean)}')
    return report


@dataclass(frozen=True)
class _Decision:
    """What becomes of a convolution, and why.

    Attributes:
        name: The name of the layer whose rules it follows.
        config: Type and arguments of the layer that takes its place, None where it stays.
        reason: Why it stays dense or loses its wavelets, or empty.
        chosen: Whether it stays dense because the user's own rules or names say so.
    """

    name: str
    config: dict | None = None
    reason: str = ''
    chosen: bool = False


def _separate(model: nn.Module, config: CompressionConfig, verbose: bool) -> bool:
    """Split convolutions as the dictionary says, and tell whether there were any to split."""
    if config.separate is None:
        return False
    # Entries that match nothing yet may name the new layers; what matches nothing then is refused.
    names = convolutions('compress_model', model)
    keep_dense = [entry for entry in config.keep_dense
                  if entry in _PLACES or any(matches(entry, name) for name in names)]
    report = separate_convs(model, **config.separate, keep_dense=keep_dense, verbose=verbose)
    return any(not layer.reason for layer in report)


def _decide(model: nn.Module, config: CompressionConfig) -> dict[nn.Conv2d, _Decision]:
    """Decide what the dictionary makes of each convolution."""
    modules = convolutions('compress_model', model)
    names = list(modules)
    for rule in config.rules:
        if not any(rule.matches(name) for name in names):
            raise ValueError(no_match('compress_model', 'rule', rule.pattern, names))
    dense = dense_names('compress_model', model, config.keep_dense, names)
    return {module: _decision(known, module, config, dense)
            for module, known in names_by_layer(modules).items()}


def _decision(names: list[str], module: nn.Conv2d, config: CompressionConfig,
              dense: dict[str, str]) -> _Decision:
    """Decide what becomes of the convolution of these names."""
    if isinstance(module, CompressedLayer):
        return _Decision(names[0], reason='compressed already')
    kept = [dense[name] for name in names if name in dense]
    if kept:
        return _Decision(names[0], reason=f'keep_dense {kept[0]!r}',
                         chosen=not set(kept) <= set(_PLACES))
    if not is_plain(module):
        return _Decision(names[0], reason=f'{type(module).__name__} has a forward of its own')
    if obstacle(module):
        return _Decision(names[0], reason=obstacle(module))
    # A shared layer follows the rules for the first of its names that one speaks of.
    name = next((name for rule in config.rules for name in names if rule.matches(name)), names[0])
    layer_config = config.layer_config(name, _is_eligible(module))
    if layer_config is not None:
        return _Decision(name, layer_config)
    by_rule = replace(config, rules=()).layer_config(name, _is_eligible(module)) is not None
    return _Decision(name, reason='rule' if by_rule else '', chosen=by_rule)


def _is_eligible(conv: nn.Conv2d) -> bool:
    return is_eligible(conv.kernel_size, conv.padding, conv.groups)


def _judge_speed(model: nn.Module, config: CompressionConfig,
                 decisions: dict[nn.Conv2d, _Decision]) -> dict[nn.Conv2d, _Decision]:
    """Take back wavelets that would not make a layer faster, if the dictionary asks for that."""
    if config.only_if_faster is None:
        return decisions
    judge, judged = SpeedJudge(model, config.only_if_faster), dict(decisions)
    for conv, decision in decisions.items():
        kind = decision.config and decision.config['type']
        if kind == WAVELET_TYPE and _is_eligible(conv):
            layer_config, reason = judge.settle(conv, decision.config, config.other)
            judged[conv] = _Decision(decision.name, layer_config, reason, layer_config is None)
    return judged


def _convert(model: nn.Module, decisions: dict[nn.Conv2d, _Decision]) -> CompressionReport:
    """Put the layers that were decided on in their places, and report on all convolutions."""
    layers = {conv: conv if decision.config is None else _build(conv, decision)
              for conv, decision in decisions.items()}
    report = CompressionReport(unhandled=unhandled_layers(model))
    for name, conv in convolutions('compress_model', model).items():
        report.append(describe_layer(name, layers[conv], geometry(conv), decisions[conv].reason))
    replace_layers(model, layers)
    return report


def _build(conv: nn.Conv2d, decision: _Decision) -> nn.Module:
    """Build the layer that takes the place of a convolution."""
    kind, name = decision.config['type'], decision.name
    layer_type = MODELS.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(layer_type, type) and issubclass(layer_type, CompressedConvMixin)):
        raise ValueError(f'compress_model: {name} cannot become {kind!r}, which is not a compressed '
                         "convolution. Use 'mmwcc.WaveletCompressedConv2d' or 'mmwcc.QuantConv2d'.")
    arguments = {key: value for key, value in decision.config.items() if key != 'type'}
    try:
        return layer_type.from_conv2d(conv, **arguments)
    except (TypeError, ValueError) as error:
        raise type(error)(f'compress_model: {name} ({geometry(conv)}) cannot become {kind}: '
                          f'{error}') from error


def _check_changed(model: nn.Module, report: CompressionReport,
                   decisions: dict[nn.Conv2d, _Decision], separated: bool) -> str:
    """Return a warning where the user chose to compress nothing, '' where something was.

    Raises:
        ValueError: If nothing was compressed, and nobody chose that.
    """
    if separated or compressed_layers(model):
        return ''
    warning = _nothing_compressed(model, report)
    if not any(decision.chosen for decision in decisions.values()):
        raise ValueError(warning)
    return warning


def _put_integers(model: nn.Module, config: CompressionConfig,
                  report: CompressionReport) -> CompressionReport:
    """Put integer layers where the dictionary asks for them; return the report that names them."""
    if config.integer is False:
        return report
    kept = config.integer.get('keep_float', ()) if isinstance(config.integer, dict) else ()
    return integer_skeleton(model, report, kept)


def _make_lean(model: nn.Module, config: CompressionConfig) -> list[str]:
    """Let activations keep masks if the dictionary asks for that; return their names."""
    if config.lean_activations is None:
        return []
    return lean_activations(model, **config.lean_activations)


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
