"""In-place conversion of a model: compressed layers replace convolutions and keep their weights."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass, replace

from torch import nn

from mmwcc.inference import integer_skeleton
from mmwcc.layers import CompressedConvMixin, CompressedLayer, is_eligible
from mmwcc.maps import add_map_scales
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
    name_quantizers,
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


def compress_model(
    model: nn.Module, compression: dict, *, verbose: bool = True
) -> CompressionReport:
    """Replace the convolutions of ``model`` by compressed layers, in place.

    Every new layer keeps the qualified name, parameter objects, device, training mode, hooks and
    attributes of the convolution it replaces. Dense checkpoints therefore load with only quantizer
    keys missing. Convolutions that are shared stay shared. These layers are not replaced: layers
    that are compressed already, transposed convolutions, subclasses of ``nn.Conv2d`` with a forward
    of their own, and convolutions whose weight is computed (weight_norm, spectral_norm, pruning, a
    parametrization). If anything fails, the model is left as it was.

    Args:
        model: Any module.
        compression: Plain data, see :class:`CompressionConfig`.
        verbose: Whether to print the report. Defaults to True.

    Returns:
        The report: one line per convolution, the learned layers that are not convolutions, and a
        summary. If nothing is compressed because of rules, names in keep_dense or only_if_faster, a
        warning says so. It is also in ``report.warning``.

    Raises:
        TypeError: If model is not a module, or a value of compression is of the wrong kind.
        ValueError: If a key or type is unknown, a rule or a keep_dense entry matches nothing, a
            layer cannot become what a rule says, the model has no convolution, or only_if_faster or
            lean_activations cannot run it. Also if nothing is compressed although neither rules nor
            names asked for that.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1))
        >>> pointwise = dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5)
        >>> compress_model(model, dict(pointwise=pointwise), verbose=False).summary()
        '3 convolutions: 1 WaveletCompressedConv2d, 2 dense'
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f'compress_model: model must be a torch.nn.Module, got {type(model).__name__}. Build '
            'the model first, or compress its config with compress of mmwcc.presets.'
        )
    config = CompressionConfig.parse(compression)
    with all_or_nothing(model):
        separated = _separate(model, config, verbose)
        decisions = _decide(model, config)
        decisions = _judge_speed(model, config, decisions)
        report = _convert(model, decisions)
        report.warning = _check_changed(model, report, decisions, separated)
        report = _put_integers(model, config, report)
        lean = _make_lean(model, config)
    watch_predictions(
        model,
        [layer.name for layer in report if layer.reason == "keep_dense 'last'"],
        config.keep_dense,
    )
    name_quantizers(model)
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
    """What happens to a convolution, and why.

    Attributes:
        name: The name by which it is looked up in the rules.
        config: Type and arguments of the layer that replaces it, or None if it stays.
        reason: Why it stays dense or does not use wavelets, or empty.
        chosen: Whether it stays dense because the user's own rules or names say so.
    """

    name: str
    config: dict | None = None
    reason: str = ''
    chosen: bool = False


def _separate(model: nn.Module, config: CompressionConfig, verbose: bool) -> bool:
    """Split convolutions as the dictionary says, and return whether any was split."""
    if config.separate is None:
        return False
    # An entry that matches nothing yet may name a layer that only the split creates. After the
    # split, an entry that still matches nothing is an error.
    names = convolutions('compress_model', model)
    keep_dense = [
        entry
        for entry in config.keep_dense
        if entry in _PLACES or any(matches(entry, name) for name in names)
    ]
    report = separate_convs(model, **config.separate, keep_dense=keep_dense, verbose=verbose)
    return any(not layer.reason for layer in report)


def _decide(model: nn.Module, config: CompressionConfig) -> dict[nn.Conv2d, _Decision]:
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
) -> _Decision:
    """Decide what happens to the convolution with these names."""
    if isinstance(module, CompressedLayer):
        return _Decision(names[0], reason='compressed already')
    kept = [dense[name] for name in names if name in dense]
    if kept:
        return _Decision(
            names[0], reason=f'keep_dense {kept[0]!r}', chosen=not set(kept) <= set(_PLACES)
        )
    if not is_plain(module):
        return _Decision(names[0], reason=f'{type(module).__name__} has a forward of its own')
    if obstacle(module):
        return _Decision(names[0], reason=obstacle(module))
    # A shared layer has several names. The first one that a rule matches decides.
    name = next((name for rule in config.rules for name in names if rule.matches(name)), names[0])
    layer_config = config.layer_config(name, _is_eligible(module))
    if layer_config is not None:
        return _Decision(name, layer_config)
    by_rule = replace(config, rules=()).layer_config(name, _is_eligible(module)) is not None
    return _Decision(name, reason='rule' if by_rule else '', chosen=by_rule)


def _is_eligible(conv: nn.Conv2d) -> bool:
    return is_eligible(conv.kernel_size, conv.padding, conv.groups)


def _judge_speed(
    model: nn.Module, config: CompressionConfig, decisions: dict[nn.Conv2d, _Decision]
) -> dict[nn.Conv2d, _Decision]:
    """Drop wavelets where they would not make a layer faster, if the dictionary asks for that."""
    if config.only_if_faster is None:
        return decisions
    judge, judged = SpeedJudge(model, config.only_if_faster), dict(decisions)
    for conv, decision in decisions.items():
        wanted = decision.config
        if wanted and wanted['type'] == WAVELET_TYPE and _is_eligible(conv):
            layer_config, reason = judge.settle(conv, wanted, config.other)
            judged[conv] = _Decision(decision.name, layer_config, reason, layer_config is None)
    return judged


def _convert(model: nn.Module, decisions: dict[nn.Conv2d, _Decision]) -> CompressionReport:
    """Replace convolutions as decided, and report on all of them."""
    layers = {
        conv: conv if decision.config is None else _build(conv, decision.name, decision.config)
        for conv, decision in decisions.items()
    }
    report = CompressionReport(unhandled=unhandled_layers(model))
    for name, conv in convolutions('compress_model', model).items():
        report.append(describe_layer(name, layers[conv], geometry(conv), decisions[conv].reason))
    replace_layers(model, layers)
    return report


def _build(conv: nn.Conv2d, name: str, config: dict) -> nn.Conv2d:
    """Build the layer that replaces the convolution ``name``."""
    kind = config['type']
    layer_type = MODELS.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(layer_type, type) and issubclass(layer_type, CompressedConvMixin)):
        raise ValueError(
            f'compress_model: {name} cannot become {kind!r}, which is not a compressed '
            "convolution. Use 'mmwcc.WaveletCompressedConv2d' or 'mmwcc.QuantConv2d'."
        )
    arguments = {key: value for key, value in config.items() if key != 'type'}
    try:
        return layer_type.from_conv2d(conv, **arguments)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f'compress_model: {name} ({geometry(conv)}) cannot become {kind}: {error}'
        ) from error


def _check_changed(
    model: nn.Module,
    report: CompressionReport,
    decisions: dict[nn.Conv2d, _Decision],
    separated: bool,
) -> str:
    """Return '' if anything was compressed, and a warning if the user chose to compress nothing.

    Raises:
        ValueError: If nothing was compressed and the user did not choose that.
    """
    if separated or compressed_layers(model):
        return ''
    warning = _nothing_compressed(model, report)
    if not any(decision.chosen for decision in decisions.values()):
        raise ValueError(warning)
    return warning


def _put_integers(
    model: nn.Module, config: CompressionConfig, report: CompressionReport
) -> CompressionReport:
    """Give maps scales and build integer layers if the dictionary asks for them.

    Returns:
        The report, which names the integer layers.
    """
    if config.maps is not None:
        add_map_scales(model, **config.maps)
    if config.integer is False:
        return report
    kept = config.integer.get('keep_float', ()) if isinstance(config.integer, dict) else ()
    return integer_skeleton(model, report, kept)


def _make_lean(model: nn.Module, config: CompressionConfig) -> list[str]:
    """Let activations save masks if the dictionary asks for that; return their names."""
    if config.lean_activations is None:
        return []
    return lean_activations(model, **config.lean_activations)


def _nothing_compressed(model: nn.Module, report: CompressionReport) -> str:
    """Return the message that all convolutions of a model stay dense, and why."""
    reasons = Counter(
        layer.reason or 'no pointwise, other or rule compresses it' for layer in report
    )
    stay = ', '.join(f'{count} x {reason}' for reason, count in reasons.items())
    others = listed(report.unhandled)
    others = f' and with layers that are not compressed: {others}' if others else ''
    return (
        f'compress_model: compression must change a layer, got {type(model).__name__} with all '
        f'convolutions left dense ({stay}){others}. Let pointwise, other or a rule give them a '
        'layer type and quantizers or a keep_ratio, shorten keep_dense, or build the model '
        'without compression.'
    )
