"""ONNX's QuantizeLinear and DequantizeLinear as torch operators, for both exporters.

The fake quantization of torch can be exported for two grids only, divides by multiplying with the
reciprocal, and leaves weights in float32. These two operators compute in torch exactly what the
ONNX specification defines.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ['dequantize_linear', 'quantize_linear', 'torchscript_symbols', 'translations']

_LIBRARY = torch.library.Library('mmwcc_onnx', 'FRAGMENT')
_LIBRARY.define('quantize_linear(Tensor x, Tensor scale, int zero, bool signed) -> Tensor')
_LIBRARY.define('dequantize_linear(Tensor x, Tensor scale, int zero, int axis) -> Tensor')


def _integer(signed: bool) -> torch.dtype:
    return torch.int8 if signed else torch.uint8


def _quantize(x: Tensor, scale: Tensor, zero: int, signed: bool) -> Tensor:
    limits = torch.iinfo(_integer(signed))
    levels = (x / scale).round() + zero
    return levels.clamp(limits.min, limits.max).to(_integer(signed))


def _dequantize(x: Tensor, scale: Tensor, zero: int, axis: int) -> Tensor:
    if scale.dim():
        scale = scale.reshape([-1 if dim == axis else 1 for dim in range(x.dim())])
    return (x.to(scale.dtype) - zero) * scale


for _name, _function in (('quantize_linear', _quantize), ('dequantize_linear', _dequantize)):
    _LIBRARY.impl(_name, _function, 'CompositeExplicitAutograd')
    torch.library.register_fake(f'mmwcc_onnx::{_name}', _function, lib=_LIBRARY)


def quantize_linear(x: Tensor, scale: Tensor, zero: int, signed: bool) -> Tensor:
    """Return ``x / scale``, rounded half to even, plus the zero point, saturated to 8 bits.

    Args:
        x: Values, float32.
        scale: Distance between two levels, one element, float32.
        zero: The zero point, the integer that stands for the value 0.
        signed: Whether the result is int8, with levels -128 ... 127, or uint8, with levels 0 ...
            255.
    """
    return torch.ops.mmwcc_onnx.quantize_linear(x, scale, zero, signed)


def dequantize_linear(x: Tensor, scale: Tensor, zero: int = 0, axis: int = 0) -> Tensor:
    """Return ``(x - zero) * scale`` in float32.

    Args:
        x: Levels, int8, uint8 or int32.
        scale: One element, or one element for each index of ``axis``, shape (n,).
        zero: The zero point, 0 unless ``x`` is uint8. Defaults to 0.
        axis: The dimension of ``x`` that a scale of shape (n,) belongs to. Defaults to 0.
    """
    return torch.ops.mmwcc_onnx.dequantize_linear(x, scale, zero, axis)


def translations() -> dict:
    """Return how the dynamo exporter writes the two operators, as ``custom_translation_table``."""
    from onnxscript import ir
    from onnxscript import opset18 as op

    def quantize(x, scale, zero, signed):
        kind = ir.DataType.INT8 if signed else ir.DataType.UINT8
        return op.QuantizeLinear(x, scale, op.Constant(value=ir.tensor(zero, dtype=kind)))

    def dequantize(x, scale, zero, axis):
        if not zero:  # as the specification has it for all types
            return op.DequantizeLinear(x, scale, axis=axis)
        point = op.Constant(value=ir.tensor(zero, dtype=ir.DataType.UINT8))
        return op.DequantizeLinear(x, scale, point, axis=axis)

    return {
        torch.ops.mmwcc_onnx.quantize_linear.default: quantize,
        torch.ops.mmwcc_onnx.dequantize_linear.default: dequantize,
    }


@contextmanager
def torchscript_symbols(opset: int) -> Iterator[None]:
    """Enable the TorchScript exporter to write the two operators, within a context."""
    from torch.onnx import symbolic_helper

    @symbolic_helper.parse_args('v', 'v', 'i', 'b')
    def quantize(g, x, scale, zero, signed):
        zero = g.op('Constant', value_t=torch.tensor(zero, dtype=_integer(signed)))
        return g.op('QuantizeLinear', x, scale, zero)

    @symbolic_helper.parse_args('v', 'v', 'i', 'i')
    def dequantize(g, x, scale, zero, axis):
        if not zero:
            return g.op('DequantizeLinear', x, scale, axis_i=axis)
        point = g.op('Constant', value_t=torch.tensor(zero, dtype=torch.uint8))
        return g.op('DequantizeLinear', x, scale, point, axis_i=axis)

    symbols = dict(quantize_linear=quantize, dequantize_linear=dequantize)
    for name, symbol in symbols.items():
        torch.onnx.register_custom_op_symbolic(f'mmwcc_onnx::{name}', symbol, opset)
    try:
        yield
    finally:
        for name in symbols:
            torch.onnx.unregister_custom_op_symbolic(f'mmwcc_onnx::{name}', opset)
