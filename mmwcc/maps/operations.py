"""What functions of torch do to the grid of a map: keep it, need a new one, or leave integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

__all__ = [
    'AVERAGING',
    'FUSED',
    'KEEPING',
    'NAMED_BY_ARGUMENTS',
    'NEW_GRID',
    'canonical_name',
    'tensors_in',
]

KEEPING = frozenset(
    {
        'avg_pool2d',
        'chunk',
        'clone',
        'contiguous',
        'detach',
        'dropout',
        'dropout2d',
        'flatten',
        'getitem',
        'interpolate',
        'max_pool2d',
        'narrow',
        'pad',
        'permute',
        'pixel_shuffle',
        'positive',
        'reshape',
        'split',
        'squeeze',
        'transpose',
        'unflatten',
        'unsqueeze',
        'view',
    }
)
"""Functions whose results lie between the values they read, so that the grid of these fits.

Global pooling is not among them: it leaves so few values that they stay in floating point.
"""

AVERAGING = frozenset({'avg_pool2d', 'interpolate'})
"""The functions in :data:`KEEPING` whose results must be rounded to the grid again."""

NEW_GRID = frozenset(
    {
        'add',
        'cat',
        'gelu',
        'hardsigmoid',
        'hardswish',
        'hardtanh',
        'leaky_relu',
        'mul',
        'relu',
        'relu6',
        'sigmoid',
        'silu',
    }
)
"""Functions whose results have a range of their own, and therefore a scale of their own."""

FUSED = frozenset({'relu', 'relu6', 'hardswish', 'silu'})
"""Activations that a convolution applies to its sums before it rounds them."""

NAMED_BY_ARGUMENTS = frozenset({'add', 'hardtanh', 'mul'})
"""Functions whose name :func:`canonical_name` takes from their arguments too."""

_NEUTRAL = dict(add=0, mul=1)
_SAME = dict(iadd='add', radd='add', imul='mul', rmul='mul', concat='cat', concatenate='cat')


def canonical_name(function: Callable, args: tuple = (), kwargs: Mapping[str, Any] = {}) -> str:
    """Return one name for the forms of a function: operator, method, in place and functional.

    ``nn.ReLU6`` calls ``hardtanh`` with the bounds 0 and 6, which is given the name 'relu6'. Adding
    0, as Python's ``sum`` does first, and multiplying by 1 are 'positive', which changes nothing.

    Example:
        >>> canonical_name(Tensor.__iadd__), canonical_name(Tensor.relu_)
        ('add', 'relu')
    """
    name = getattr(function, '__name__', str(function)).strip('_')
    if name == 'hardtanh':
        bounds = dict(zip(('min_val', 'max_val'), args[1:3], strict=False)) | dict(kwargs)
        if (bounds.get('min_val', -1), bounds.get('max_val', 1)) == (0, 6):
            return 'relu6'
    name = _SAME.get(name, name)
    operands = [*args[:2], kwargs.get('input'), kwargs.get('other')]
    if any(type(x) in (int, float) and x == _NEUTRAL.get(name) for x in operands):
        return 'positive'
    return name


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in arguments or results of a function, in order; lists are looked into."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        return []
    return [tensor for item in value for tensor in tensors_in(item)]
