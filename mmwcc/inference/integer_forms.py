"""The integer form of each trainable layer."""

from __future__ import annotations

from typing import Any

from torch import nn

from .integer_conv import IntegerConv2d, IntegerWaveletCompressedConv2d
from .integer_layer import PointwiseIntegerLayer
from .integer_linear import IntegerLinear, IntegerWaveletCompressedLinear

__all__ = ['INTEGER_FORMS', 'integer_obstacle']

INTEGER_FORMS: dict[type[nn.Module], type[PointwiseIntegerLayer]] = {
    form._stands_for: form
    for form in (
        IntegerConv2d,
        IntegerWaveletCompressedConv2d,
        IntegerLinear,
        IntegerWaveletCompressedLinear,
    )
}
"""The integer form of each trainable class. Subclasses have none, as they may compute otherwise."""


def integer_obstacle(layer: Any) -> str:
    """Return why ``layer`` has no integer form, or '' if it has one."""
    form = INTEGER_FORMS.get(type(layer))
    return 'not a quantized convolution' if form is None else form.obstacle(layer)
