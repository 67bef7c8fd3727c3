"""In-place conversion of a model: compressed layers replace dense ones and keep their weights."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from torch import nn

from mmwcc.inference import integer_skeleton
from mmwcc.layers import CompressedConvMixin, CompressedLayerMixin, CompressedLinearMixin
from mmwcc.maps import add_map_scales
from mmwcc.model_tree import (
    CompressionReport,
    all_or_nothing,
    announce,
    compressed_layers,
    connect_grids,
    convolutions,
    describe_layer,
    geometry,
    listed,
    matches,
    replace_layers,
    replaceable_layers,
    unhandled_layers,
)
from mmwcc.quantizers import settle_after_forward
from mmwcc.registry import MODELS

from .config import CompressionConfig
from .decisions import PLACES, Decision, decide, judge_maps, judge_speed, no_wavelets
from .first_step import tell_at_first_step
from .gain import Gain, expected_gain
from .lean import lean_activations
from .loading import watch_states
from .old_checkpoints import watch_predictions
from .separate import SeparationReport, separate_convs
from .tiny_maps import watch_tiny_maps

__all__ = ['NothingCompressed', 'compress_model']


class NothingCompressed(ValueError):
    """A model has no convolution that the compression changes."""


def compress_model(
    model: nn.Module,
    compression: dict,
    *,
    input_shape: Sequence[int] | None = None,
    verbose: bool | Literal['in training'] = True,
) -> CompressionReport:
    """Replace the convolutions of ``model`` by compressed layers, in place.

    With the key ``linear``, it replaces linear layers too. Every new layer keeps the qualified
    name, parameter objects, device, training mode, hooks and attributes of the layer it replaces.
    Dense checkpoints therefore load with only quantizer keys missing. Layers that are shared stay
    shared. These layers are not replaced: layers
    that are compressed already, transposed convolutions, subclasses of ``nn.Conv2d`` with a forward
    of their own, and convolutions whose weight is computed (weight_norm, spectral_norm, pruning, a
    parametrization). If anything fails, the model is left as it was.

    Args:
        model: Any module.
        compression: Plain data, see :class:`CompressionConfig`.
        input_shape: (height, width) of the images, or the shape of one input. The model then runs
            once, and the report says what is gained for such an input: operations, the parts that
            stay dense, the expected speed, and a warning if the gain is small. Defaults to None:
            the first training step tells the size, and the gain is printed when it begins.
        verbose: Whether to print the report. 'in training' prints one line, and the report when the
            first training step begins. Defaults to True.

    Returns:
        The report: one line per convolution, the learned layers that are not convolutions, a
        summary, and ``report.gain`` where the size is known. If nothing is compressed because of
        rules, names in keep_dense or only_if_faster, a warning says so. It is also in
        ``report.warning``.

    Raises:
        TypeError: If model is not a module, or a value of compression is of the wrong kind.
        ValueError: If a key or type is unknown, a rule or a keep_dense entry matches nothing, a
            layer cannot become what a rule says, the model has no convolution, or only_if_faster or
            lean_activations cannot run it, or if the model cannot run on input_shape.
        NothingCompressed: If nothing is compressed although neither rules nor names asked for that.

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
        separated = _separate(model, config)
        decided = decide(model, config)
        decisions, unknown = judge_maps(model, config, decided)
        decisions = judge_speed(model, config, decisions)
        report = _convert(model, config, decisions)
        report.warning = _check_changed(model, report, decisions, separated)
        report.warning = report.warning or no_wavelets(config, decided, decisions)
        if input_shape is not None:
            report.gain = _gain(model, config, input_shape)
        report = _put_integers(model, config, report)
        report.notes = unknown + _describe(separated, _make_lean(model, config), model)
    watch_predictions(
        model,
        [
            layer.name
            for layer in report
            if layer.reason == "keep_dense 'last'" and 'Linear' not in layer.before
        ],
        config.keep_dense,
    )
    watch_tiny_maps(model, [decision.name for decision in decisions.values() if decision.is_tiny])
    watch_states(model)
    settle_after_forward(model)
    for warning in filter(None, (report.warning, report.gain and report.gain.warning)):
        warnings.warn(warning, stacklevel=2)
    if verbose:
        in_training = verbose == 'in training'
        text = _in_brief(report) if in_training else f'\n{report}'
        announce(f'Compressed {type(model).__name__}:{text}')
        if input_shape is None:
            tell_at_first_step(model, report, table=config.speeds, layers=in_training)
    return report


def _separate(model: nn.Module, config: CompressionConfig) -> SeparationReport:
    """Split convolutions as the dictionary says, and return what was split."""
    if config.separate is None:
        return SeparationReport()
    # An entry that matches nothing yet may name a layer that only the split creates. After the
    # split, an entry that still matches nothing is an error.
    names = convolutions('compress_model', model)
    keep_dense = [
        entry
        for entry in config.keep_dense
        if entry in PLACES or any(matches(entry, name) for name in names)
    ]
    return separate_convs(model, **config.separate, keep_dense=keep_dense, verbose=False)


def _convert(
    model: nn.Module, config: CompressionConfig, decisions: dict[nn.Module, Decision]
) -> CompressionReport:
    """Replace layers as decided, and report on all of them."""
    layers = {
        conv: conv if decision.config is None else _build(conv, decision.name, decision.config)
        for conv, decision in decisions.items()
    }
    linear = config.linear is not None
    handled = (nn.Conv2d, nn.Linear) if linear else (nn.Conv2d,)
    report = CompressionReport(unhandled=unhandled_layers(model, handled))
    for name, conv in replaceable_layers('compress_model', model, linear).items():
        report.append(describe_layer(name, layers[conv], geometry(conv), decisions[conv].reason))
    replace_layers(model, layers)
    connect_grids(model)
    return report


def _build(conv: nn.Module, name: str, config: dict) -> nn.Module:
    """Build the layer that replaces the layer ``name``."""
    kind = config['type']
    layer_type = MODELS.get(kind) if isinstance(kind, str) else kind
    linear = isinstance(conv, nn.Linear)
    base: type = CompressedLinearMixin if linear else CompressedConvMixin
    if not (isinstance(layer_type, type) and issubclass(layer_type, base)):
        what, form = ('linear layer', 'Linear') if linear else ('convolution', 'Conv2d')
        raise ValueError(
            f'compress_model: {name} cannot become {kind!r}, which is not a compressed {what}. '
            f"Use 'mmwcc.WaveletCompressed{form}' or 'mmwcc.Quant{form}'."
        )
    assert issubclass(layer_type, CompressedLayerMixin), 'both bases are'

    arguments = {key: value for key, value in config.items() if key != 'type'}
    try:
        return layer_type.from_dense(conv, **arguments)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f'compress_model: {name} ({geometry(conv)}) cannot become {kind}: {error}'
        ) from error


def _check_changed(
    model: nn.Module,
    report: CompressionReport,
    decisions: dict[nn.Module, Decision],
    separated: SeparationReport,
) -> str:
    """Return '' if anything was compressed, and a warning if the user chose to compress nothing.

    Raises:
        NothingCompressed: If nothing was compressed and the user did not choose that.
    """
    if any(not layer.reason for layer in separated) or compressed_layers(model):
        return ''
    warning = _nothing_compressed(model, report)
    if not any(decision.chosen for decision in decisions.values()):
        raise NothingCompressed(warning)
    return warning


def _gain(model: nn.Module, config: CompressionConfig, input_shape: Sequence[int]) -> Gain:
    """Count what is gained. Integer layers come later, because they cannot run without weights."""
    gain = expected_gain(model, input_shape, table=config.speeds)
    return replace(gain, speed=None) if config.integer else gain


def _put_integers(
    model: nn.Module, config: CompressionConfig, report: CompressionReport
) -> CompressionReport:
    """Give maps scales and build integer layers if the dictionary asks for them.

    Returns:
        The report, which names the integer layers.
    """
    scales = None if config.maps is None else add_map_scales(model, **config.maps)
    if config.integer is False:
        return report
    kept = config.integer.get('keep_float', ()) if isinstance(config.integer, dict) else ()
    try:
        return integer_skeleton(model, report, kept)
    except ValueError:
        if scales is not None:
            scales.leave(model)
        raise


def _make_lean(model: nn.Module, config: CompressionConfig) -> list[str]:
    """Let activations save masks if the dictionary asks for that; return their names."""
    if config.lean_activations is None:
        return []
    return lean_activations(model, **config.lean_activations)


def _describe(separated: SeparationReport, lean: list[str], model: nn.Module) -> list[str]:
    """Say what was done besides replacing convolutions."""
    notes = [f'Separated {type(model).__name__}:\n{separated}'] if separated else []
    return notes + ([f'Activations that keep masks for backward: {len(lean)}'] if lean else [])


def _in_brief(report: CompressionReport) -> str:
    return f' {report.summary()}' + (f'\n{report.warning}' if report.warning else '')


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
        f'convolutions left dense ({stay}){others}. Let pointwise, other, linear or a rule give '
        'them a layer type and quantizers or a keep_ratio, shorten keep_dense, or build the model '
        'without compression.'
    )
