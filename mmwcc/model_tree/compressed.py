"""The compressed layers of a model."""

from __future__ import annotations

from typing import Any

from torch import nn

from mmwcc.layers import CompressedLayer
from mmwcc.quantizers import UniformQuantizer

__all__ = ['compressed_layers', 'name_quantizers', 'unwrapped']


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside DDP, mmengine's wrappers, averages and test-time augmentation."""
    while isinstance(inner := getattr(model, 'module', None), nn.Module) and _wraps(model):
        model = inner
    return model


def _wraps(model: nn.Module) -> bool:
    """Tell whether a model only wraps its ``module``, and is not a network with such a part."""
    augments = hasattr(model, 'merge_preds')  # mmengine's BaseTTAModel; it has a preprocessor too
    return augments or len(list(model.children())) == 1


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
