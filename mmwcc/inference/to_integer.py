"""Conversion of trained quantized layers to integer layers, and the model that loads the result."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable
from typing import Any

from torch import nn

from mmwcc.layers import CompressedLinearMixin, QuantConv2d
from mmwcc.maps import map_obstacle
from mmwcc.messages import some_of
from mmwcc.model_tree import (
    CompressionReport,
    LayerReport,
    LayerState,
    announce,
    matches,
    named_layers,
    no_match,
    obstacle,
    replace_layers,
    weight_count,
)

from .integer_forms import INTEGER_FORMS, integer_obstacle
from .integer_layer import IntegerLayer
from .integer_network import convert_maps, map_scales

__all__ = ['UNLEARNED', 'integer_skeleton', 'to_integer']

UNLEARNED = 'never ran: its clips are not learned'
"""Why a layer is not converted although it has an integer form."""

_NOT_FOLLOWED = 'never ran when scales were added'


def _candidates(model: nn.Module) -> dict[str, Any]:
    """Return convolutions, compressed linear layers and integer layers under all their names."""
    return named_layers(model, nn.Conv2d, CompressedLinearMixin, IntegerLayer)


def _obstacle(layer: nn.Module) -> str:
    """Return why a layer has no integer form of its own, or ''."""
    return integer_obstacle(layer) or obstacle(layer)


def _between_maps(model: nn.Module) -> set[nn.Module]:
    """Return the layers that read or write maps with scales."""
    scales = map_scales(model)
    return set() if scales is None else {model.get_submodule(name) for name in scales.plan.layers}


def _convert(
    model: nn.Module,
    alone: Collection[nn.Module],
    build: Callable[[Any], nn.Module],
    *,
    weights: bool = True,
) -> dict[nn.Module, nn.Module]:
    """Replace layers by ``build(layer)``, and those between maps with scales.

    Args:
        model: The model.
        alone: The layers that are converted each by itself.
        build: Builds the integer form of one of them.
        weights: Whether the layers between maps take over weights. Defaults to True.

    Returns:
        The new layer of each that was replaced.
    """
    made = {layer: build(layer) for layer in dict.fromkeys(alone)}
    scales = map_scales(model)
    if scales is not None:
        return convert_maps(model, scales, made, weights=weights)
    replace_layers(model, made)
    return made


def _reason(layer: nn.Module, followed: bool) -> str:
    """Return why a layer was not converted. ``followed`` tells whether maps have scales."""
    if isinstance(layer, IntegerLayer):
        return 'converted already'
    if followed and type(layer) is QuantConv2d:
        return map_obstacle(layer) or (_NOT_FOLLOWED if _obstacle(layer) else UNLEARNED)
    return _obstacle(layer) or UNLEARNED


def _describe(name: str, layer: nn.Module, integer: nn.Module | None, followed: bool):
    state = LayerState.of(layer)
    return LayerReport(
        name,
        state.kind,
        state.kind if integer is None else type(integer).__name__,
        **state.quantities,
        weights=weight_count(layer),
        reason='' if integer is not None else _reason(layer, followed),
    )


def _learned(ready: dict[str, Any], required: bool) -> dict[str, Any]:
    """Return the layers that have learned their clips, and warn of the others.

    Raises:
        RuntimeError: If none has although that is required.
    """
    unlearned = [name for name, layer in ready.items() if layer.unlearned()]
    named = some_of(unlearned)
    if required and len(unlearned) == len(ready):
        raise RuntimeError(
            'to_integer: quantizers must have learned their clips, got layers that are not '
            f'initialized: {named}. Load a compressed checkpoint, or train or calibrate the model '
            'first.'
        )
    if unlearned:
        warnings.warn(
            f'to_integer: {named} stay as they are, because they never ran, so that their clips '
            'are not learned. Calibrate the model if they should run.',
            stacklevel=3,
        )
    return {name: layer for name, layer in ready.items() if name not in unlearned}


def to_integer(model: nn.Module, *, verbose: bool = True) -> CompressionReport:
    """Replace the trained quantized convolutions of ``model`` by integer ones, in place.

    The result is for inference. The function converts each
    :class:`~mmwcc.layers.WaveletCompressedConv2d` and each 1x1 :class:`~mmwcc.layers.QuantConv2d`
    (any stride, one group) whose weights and inputs are quantized to 8 bits or fewer. If the maps
    of the model have scales (see :func:`mmwcc.maps.add_map_scales`), it converts each such
    :class:`~mmwcc.layers.QuantConv2d` of any geometry, folds BatchNorm into it, and the maps
    between these layers have 8 bits. All other layers stay as they are, and the report says why.
    If converting one layer fails, none is converted.

    A layer that never ran, such as one in a head that only training uses, has no clips to convert.
    If other layers have theirs, it stays as it is, and a warning says so. To load the checkpoint of
    such a model, build it with ``integer=dict(keep_float=[names])`` in the compression dictionary.

    Args:
        model: A trained model with compressed layers.
        verbose: Whether to print the report. Defaults to True.

    Returns:
        The report: one line per convolution. ``before`` and ``after`` are names of classes.

    Raises:
        ValueError: If the model has no layer to convert, or if a layer to convert has a weight that
            is NaN.
        RuntimeError: If no layer to convert has learned its clips, or a map that has a scale has
            not learned it.

    Note:
        The integers are those that fake quantization rounds to. The outputs of each layer therefore
        differ from those of the trained layer only in the rounding of float32 sums, by at most
        ``(C + 6) * 2**-24`` times the sum of the magnitudes of the products (see docs/integer.md).

    Example:
        >>> quantizers = dict(
        ...     weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer'),
        ...     act_quant=dict(type='mmwcc.LearnedClipActQuantizer'),
        ... )
        >>> layer = WaveletCompressedConv2d(8, 8, keep_ratio=0.5, **quantizers)
        >>> y = layer(torch.randn(1, 8, 8, 8))  # a training step, which teaches the clips
        >>> to_integer(nn.Sequential(layer).eval(), verbose=False).summary()
        '1 convolutions: 1 IntegerWaveletCompressedConv2d'
    """
    layers = _candidates(model)
    if '' in layers:
        raise ValueError(
            'to_integer: the model must contain the layers to convert, got a '
            f'{type(model).__name__}. Use from_layer of its integer class, or put it into '
            'nn.Sequential.'
        )
    between = _between_maps(model)
    ready = {
        name: layer
        for name, layer in layers.items()
        if layer not in between and not _obstacle(layer)
    }
    if not ready and not between:
        raise ValueError(
            'to_integer: the model must have 1x1 layers with weights and activations of 8 bits or '
            f'fewer, got {type(model).__name__} without one among its {len(layers)} layers. '
            'Compress it with a preset such as wcc_w8a8_k50 and train it first.'
        )
    put = _convert(
        model,
        _learned(ready, required=not between).values(),
        lambda layer: INTEGER_FORMS[type(layer)].from_layer(layer),
    )
    report = CompressionReport(
        _describe(name, layer, put.get(layer), bool(between)) for name, layer in layers.items()
    )
    if verbose:
        announce(f'Converted {type(model).__name__} to integers:\n{report}')
    return report


def integer_skeleton(
    model: nn.Module, report: CompressionReport, keep_float: Iterable[str] = ()
) -> CompressionReport:
    """Put integer layers without weights where :func:`to_integer` would put integer layers.

    Args:
        model: A compressed model, whose quantizers need not be initialized.
        report: The report of its compression, with one entry per convolution.
        keep_float: Names, or regular expressions for whole names, of layers that
            :func:`to_integer` left as they were. Defaults to none.

    Returns:
        The report, updated with the integer layers.

    Raises:
        ValueError: If no layer of the model has an integer form, or an entry of keep_float matches
            none that has one.
    """
    layers, between = _candidates(model), _between_maps(model)
    ready = {
        name: layer
        for name, layer in layers.items()
        if layer not in between and not _obstacle(layer)
    }
    for entry in keep_float:
        if not any(matches(entry, name) for name in ready):
            raise ValueError(no_match('compress_model', 'keep_float entry', entry, list(ready)))
    kept = {name for name in ready if any(matches(entry, name) for entry in keep_float)}
    put = _convert(
        model,
        [layer for name, layer in ready.items() if name not in kept],
        lambda layer: (
            INTEGER_FORMS[type(layer)].like(layer).to(layer.weight.device).train(layer.training)
        ),
        weights=False,
    )
    if not put:
        raise ValueError(
            'compression: integer=True needs 1x1 layers with weights and activations of 8 bits or '
            'fewer, got none. Use the compression that the model was trained with.'
        )
    return report.updated(
        {
            name: dict(after=type(put[layer]).__name__)
            for name, layer in layers.items()
            if layer in put
        }
    )
