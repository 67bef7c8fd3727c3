"""The compressed layers of a model."""

from __future__ import annotations

from typing import Any

from torch import nn

from mmwcc.layers import CompressedLayer
from mmwcc.quantizers import UniformQuantizer

__all__ = ['compressed_layers', 'name_quantizers', 'unwrapped']


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside DDP and mmengine's wrappers."""
    while (
        isinstance(inner := getattr(model, 'module', None), nn.Module)
        and len(list(model.children())) == 1
    ):
        model = inner
    return model


def compressed_layers(model: nn.Module) -> dict[str, Any]:
    """Return the compressed layers of a model by qualified name, without the names of wrappers."""
    return {
        name: module
        for name, module in unwrapped(model).named_modules()
        if isinstance(module, CompressedLayer)
    }


def name_quantizers(model: nn.Module) -> None:
    """Tell each quantizer its qualified name, so that its messages can give it."""
    for name, module in model.named_modules():
        if isinstance(module, UniformQuantizer):
            module.place = name
