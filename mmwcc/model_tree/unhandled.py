"""Learned layers that compression does not handle, so that a report can name them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

__all__ = ['UnhandledLayers', 'class_name', 'listed', 'unhandled_layers']

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
_TABLES = (nn.Embedding, nn.EmbeddingBag)
# Names of parameters that are added or looked up but multiply nothing, such as position
# embeddings and tokens.
_ADDED = re.compile(r'emb|token|bias')


@dataclass(frozen=True)
class UnhandledLayers:
    """The layers of one class that no compression config changes.

    Attributes:
        kind: Name of the class.
        count: Number of layers, where a shared one counts once.
        weights: Number of their weights.
    """

    kind: str
    count: int
    weights: int


def class_name(module: nn.Module) -> str:
    """Return the name of the class of a layer by which its user knows it.

    Example:
        >>> class_name(nn.MultiheadAttention(4, 2).out_proj)
        'Linear'
    """
    kind = type_before_parametrizations(module)
    return 'Linear' if kind is NonDynamicallyQuantizableLinear else kind.__name__


def unhandled_layers(model: nn.Module, handled: tuple = (nn.Conv2d,)) -> list[UnhandledLayers]:
    """Return the learned layers that are not handled, normalization or embedding, by class.

    A layer counts as learned if it holds a floating-point parameter of two or more dimensions
    itself.

    Args:
        model: Any module.
        handled: Classes of layers that compression handles. Defaults to (nn.Conv2d,).

    Example:
        >>> unhandled_layers(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Linear(8, 4), nn.Linear(4, 2)))
        [UnhandledLayers(kind='Linear', count=2, weights=40)]
    """
    inside = {
        part
        for module in model.modules()
        if is_parametrized(module)
        for part in module.get_submodule('parametrizations').modules()
    }
    weights: dict[str, list[int]] = {}
    for module in model.modules():
        if module not in inside and not isinstance(module, (*handled, *_NORMS, *_TABLES)):
            count = _weight_count(module)
            if count:
                weights.setdefault(class_name(module), []).append(count)
    return [UnhandledLayers(kind, len(counts), sum(counts)) for kind, counts in weights.items()]


def _weight_count(module: Any) -> int:
    own = list(module._parameters.items())
    if is_parametrized(module):
        own += module.parametrizations.named_parameters()
    return sum(
        parameter.numel()
        for name, parameter in own
        if parameter is not None
        and not is_lazy(parameter)
        and parameter.is_floating_point()
        and parameter.dim() > 1
        and not _ADDED.search(name)
    )


def listed(layers: Iterable[UnhandledLayers]) -> str:
    """List layers in one line.

    Example:
        >>> listed([UnhandledLayers('Linear', 36, 7077888), UnhandledLayers('Conv1d', 1, 256)])
        '36 Linear (7,077,888 weights), 1 Conv1d (256 weights)'
    """
    return ', '.join(f'{layer.count} {layer.kind} ({layer.weights:,} weights)' for layer in layers)
