"""The layers of a model under one name each, or under all their names.

A module that several parents share has several names. ``named_modules`` lists it once, under the
first of them. A state dictionary lists it under all.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from mmwcc.layers import CompressedLayer

__all__ = ['compressed_layers', 'first_names', 'named_layers', 'unwrapped']


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside DDP, mmengine's wrappers, averages and test-time augmentation."""
    while isinstance(inner := getattr(model, 'module', None), nn.Module) and _wraps(model):
        model = inner
    return model


def _wraps(model: nn.Module) -> bool:
    """Tell whether a model only wraps its ``module``, and is not a network with such a part."""
    augments = hasattr(model, 'merge_preds')  # mmengine's BaseTTAModel; it has a preprocessor too
    return augments or len(list(model.children())) == 1


def named_layers(model: nn.Module, *kinds: type) -> dict[str, Any]:
    """Return the layers of some kinds under all their names, as a state dictionary lists them.

    Use it wherever names come from outside: from a checkpoint, a config or a user. Use
    :func:`compressed_layers` to work on each layer once.

    Args:
        model: Any module.
        *kinds: Classes of the layers.

    Example:
        >>> shared = nn.Conv2d(4, 4, 1)
        >>> list(named_layers(nn.Sequential(shared, nn.ReLU(), shared), nn.Conv2d))
        ['0', '2']
    """
    return {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, kinds)
    }


def compressed_layers(model: nn.Module) -> dict[str, Any]:
    """Return the compressed layers of a model, each once, without the names of wrappers.

    A shared layer is listed under its first name. :func:`named_layers` lists all names.
    """
    return {
        name: module
        for name, module in unwrapped(model).named_modules()
        if isinstance(module, CompressedLayer)
    }


def first_names(model: nn.Module) -> dict[str, str]:
    """Map all names of all modules to the first name of each, without the names of wrappers."""
    inner = unwrapped(model)
    first = {module: name for name, module in inner.named_modules()}
    return {name: first[module] for name, module in inner.named_modules(remove_duplicate=False)}
