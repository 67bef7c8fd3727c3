"""Layers of a model by name: which ones a config means, and how reports describe them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from mmwcc.layers import SeparableConv2d, WaveletConv2d
from mmwcc.messages import some_of

from .compressed import named_layers
from .predictors import named_like_a_predictor, prediction_layers
from .unhandled import listed, unhandled_layers

__all__ = [
    'convolutions',
    'dense_names',
    'geometry',
    'is_plain',
    'kept_by_name',
    'matches',
    'no_match',
    'replaceable_layers',
]

Layer = TypeVar('Layer', bound=nn.Module)


def convolutions(caller: str, model: nn.Module) -> dict[str, nn.Conv2d]:
    """Return the convolutions of a model by qualified name, shared ones under all their names.

    Args:
        caller: Name of the function that raises the error.
        model: The model.

    Raises:
        ValueError: If the model contains none, or is itself a convolution.
    """
    found = named_layers(model, nn.Conv2d)
    if '' in found:
        raise ValueError(
            f'{caller}: the model must contain convolutions (nn.Conv2d), got '
            f'{type(model).__name__} with none inside. Put a single layer into nn.Sequential, or '
            'use its class directly.'
        )
    if not found:
        others = listed(unhandled_layers(model))
        instead = f'none but {others}' if others else 'none inside'
        raise ValueError(
            f'{caller}: the model must contain convolutions (nn.Conv2d), got '
            f'{type(model).__name__} with {instead}. '
            'Other layers are not compressed; leave this model as it is.'
        )
    return found


def replaceable_layers(caller: str, model: nn.Module, linear: bool) -> dict[str, nn.Module]:
    """Return the layers that a compression may replace, shared ones under all their names.

    Args:
        caller: Name of the function that raises the error.
        model: The model.
        linear: Whether linear layers count, and not only convolutions.

    Raises:
        ValueError: If the model contains none.
    """
    found = named_layers(model, nn.Linear) if linear else {}
    if not found or '' in found:
        return {**convolutions(caller, model)}
    return named_layers(model, nn.Conv2d, nn.Linear)


def names_by_layer(modules: Mapping[str, Layer]) -> dict[Layer, list[str]]:
    """Return all names of each layer, in order."""
    names: dict[Layer, list[str]] = {}
    for name, module in modules.items():
        names.setdefault(module, []).append(name)
    return names


def is_plain(module: nn.Module) -> bool:
    """Tell whether a module computes exactly what ``nn.Conv2d`` or ``nn.Linear`` does.

    mmcv's wrappers count, because all they add is support for empty batches.
    """
    base = next((base for base in (nn.Conv2d, nn.Linear) if isinstance(module, base)), None)
    kind: Any = type(module)
    if base is None or kind is NonDynamicallyQuantizableLinear:
        return False
    if base is nn.Conv2d and kind._conv_forward is not nn.Conv2d._conv_forward:
        return False
    return kind.forward is base.forward or (kind.__module__, kind.__name__) == (
        'mmcv.cnn.bricks.wrappers',
        base.__name__,
    )


def _parts(model: nn.Module) -> dict[str, str]:
    """Map convolutions inside a layer that stands for a single convolution to that layer's name.

    Such convolutions are the first or last layer of a model only together.
    """
    return {
        f'{name}.{part}': name
        for name, module in named_layers(model, SeparableConv2d, WaveletConv2d).items()
        for part in named_layers(module, nn.Conv2d)
    }


def dense_names(
    caller: str, model: nn.Module, keep_dense: Iterable[str], names: list[str]
) -> dict[str, str]:
    """Resolve ``keep_dense`` to names of layers.

    Args:
        caller: Name of the function that raises the error.
        model: The model.
        keep_dense: Names, regular expressions for whole names, 'first' and 'last'.
        names: Names of all layers that count, in order.

    Returns:
        The names, each with the entry that matched it.

    Raises:
        ValueError: If an entry matches nothing.
    """
    dense, wholes = {}, _parts(model)
    layers = list(dict.fromkeys(wholes.get(name, name) for name in names))
    networks = list(_networks(model, layers))
    for entry in keep_dense:
        if entry in ('first', 'last'):
            chosen = (_first_layers if entry == 'first' else _last_layers)(model, networks)
            found = {name for name in names if wholes.get(name, name) in chosen}
        else:
            found = {name for name in names if matches(entry, name)}
            if not found:
                raise ValueError(no_match(caller, 'keep_dense entry', entry, names))
        dense.update(dict.fromkeys(found, entry))
    return dense


def _networks(model: nn.Module, layers: list[str]) -> Iterator[list[str]]:
    """Yield the layers of each network of a model, of which most models are only one.

    mmengine's models bring a preprocessor of images. A model that holds several of them, such as a
    student and its teacher, has as many first and last layers. Layers beside these networks are in
    none.
    """
    whole: list[str] = []
    for name, module in model.named_modules():
        prefix = f'{name}.'
        if name and hasattr(module, 'data_preprocessor') and not prefix.startswith(tuple(whole)):
            whole += [prefix] * any(layer.startswith(prefix) for layer in layers)
    for prefix in whole if len(whole) > 1 else ['']:
        yield [layer for layer in layers if layer.startswith(prefix)]


def _first_layers(model: nn.Module, networks: list[list[str]]) -> set[str]:
    """Return the layer that each network defines first."""
    return {layers[0] for layers in networks}


def _last_layers(model: nn.Module, networks: list[list[str]]) -> set[str]:
    """Return the layers that predict, or where a network has none, the layer defined last."""
    predictors = prediction_layers(model)
    found = (predictors.intersection(layers) or set(layers[-1:]) for layers in networks)
    return predictors.union(*found)


def kept_by_name(model: nn.Module, names: list[str]) -> list[str]:
    """Return the convolutions that were taken for prediction layers before this release."""
    wholes = _parts(model)
    layers = [wholes.get(name, name) for name in names]
    chosen = {layer for layer in layers if named_like_a_predictor(layer)} or set(layers[-1:])
    return [name for name, layer in zip(names, layers, strict=True) if layer in chosen]


def matches(entry: str, name: str) -> bool:
    """Tell whether an entry equals a name or is a regular expression that matches all of it."""
    return name == entry or re.fullmatch(entry, name) is not None


def no_match(caller: str, what: str, pattern: str, names: list[str]) -> str:
    """Return the message that a pattern matches none of the names, and what may have been meant."""
    return (
        f'{caller}: the {what} {pattern!r} matches no convolution; it must match a whole qualified '
        f'name. {_nearest_pattern(pattern, names)}It can match: {some_of(names, most=40)}.'
    )


def _nearest_pattern(pattern: str, names: list[str]) -> str:
    """Suggest the layer nearest to what a pattern spells, or all layers in the nearest module."""
    patterns = {
        '.'.join(parts[:end]): re.escape('.'.join(parts[:end])) + r'\..*'
        for parts in (name.split('.') for name in names)
        for end in range(1, len(parts))
    }
    patterns |= {name: re.escape(name) for name in names}
    nearest = get_close_matches(pattern.replace('\\', ''), patterns, n=1, cutoff=0.4)
    if not nearest:
        return ''
    meant = patterns[nearest[0]]
    prefix = 'r' if '\\' in meant else ''
    return f"Did you mean {prefix}'{meant}'? "


def geometry(conv: nn.Module) -> str:
    """Describe a layer briefly, for example 'Linear' or 'Conv2d 3x3/2 g32'."""
    if not isinstance(conv, nn.Conv2d):
        return 'Linear'
    height, width = conv.kernel_size
    stride = '' if conv.stride == (1, 1) else f'/{conv.stride[0]}'
    dilation = '' if conv.dilation == (1, 1) else f' d{conv.dilation[0]}'
    groups = '' if conv.groups == 1 else f' g{conv.groups}'
    return f'Conv2d {height}x{width}{stride}{dilation}{groups}'
