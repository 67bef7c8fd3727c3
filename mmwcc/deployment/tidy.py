"""Changes of an exported graph after which runtimes compute it in integers.

None of them changes what the graph returns. A runtime computes a convolution in integers where
DequantizeLinear stands before it and QuantizeLinear behind it, with nothing between.
"""

from __future__ import annotations

import numpy as np

from .graph import Graph, grid_of
from .onnxruntime_forms import fuse_gelu, fuse_silu, sum_integers

__all__ = ['tidy']


def tidy(
    model, integer_sums: bool = False, early_concat: bool = False, own_operators: bool = False
) -> None:
    """Remove what keeps runtimes from computing a graph in integers, in place.

    Args:
        model: An ONNX model.
        integer_sums: Whether convolutions whose sums are not rounded at once become ConvInteger.
            Defaults to False.
        early_concat: Whether maps are rounded before a concatenation that is rounded twice behind
            it. Defaults to False.
        own_operators: Whether operators that only ONNX Runtime has are allowed. Defaults to False.
    """
    graph = Graph(model)
    if early_concat:
        for concat in graph.of_type('Concat'):
            _round_before(graph, concat)
    for quantize in graph.of_type('QuantizeLinear'):
        _drop_repeated(graph, quantize)
    for dequantize in graph.of_type('DequantizeLinear'):
        _share_grid(graph, dequantize)
    for dequantize in graph.of_type('DequantizeLinear'):
        _part_readers(graph, dequantize)
    for kind in ('Clip', 'Relu'):  # a Clip may stand behind a Relu
        for activation in graph.of_type(kind):
            _absorb(graph, activation)
    if integer_sums:
        for conv in graph.of_type('Conv'):
            sum_integers(graph, conv)
    if own_operators:
        for erf in graph.of_type('Erf'):
            fuse_gelu(graph, erf)
        for sigmoid in graph.of_type('Sigmoid'):
            fuse_silu(graph, sigmoid)
    graph.write()


def _round_before(graph: Graph, concat) -> None:
    """Round what a concatenation reads, in place of its result, if that is rounded once more."""
    readers = graph.readers(concat)
    if len(readers) != 1 or grid_of(graph, readers[0]) is None or graph.is_output(concat):
        return
    quantize = readers[0]
    behind = graph.readers(quantize)
    twice = [node for first in behind for node in graph.readers(first)]
    if not any(node.op_type == 'QuantizeLinear' for node in twice):
        return
    for position, name in enumerate(concat.input):
        pair = [graph.copy(node, f'_{position}') for node in (quantize, behind[0])]
        graph.connect(pair[0], 0, name)
        graph.connect(pair[1], 0, pair[0].output[0])
        graph.connect(concat, position, pair[1].output[0])
    for dequantize in behind:
        graph.bypass(dequantize, concat.output[0])


def _limits(graph: Graph, clip) -> tuple[float, float]:
    """Return the bounds of a Relu or Clip, infinite where there is none or it is not constant."""
    if clip.op_type == 'Relu':
        return 0.0, np.inf
    low, high = graph.constant(clip, 1), graph.constant(clip, 2)
    return (-np.inf if low is None else low.item()), (np.inf if high is None else high.item())


def _drop_repeated(graph: Graph, quantize) -> None:
    """Let what reads a map that is rounded twice to one grid read the first result."""
    before = graph.maker(quantize.input[0])
    if before is not None and before.op_type == 'Clip':  # of a grid with fewer bits
        first = graph.maker(before.input[0])
        if first is None or _limits(graph, before) != _limits_behind(graph, first):
            return
        before = first
    if before is None or before.op_type != 'DequantizeLinear':
        return
    if grid_of(graph, before) is not None and grid_of(graph, before) == grid_of(graph, quantize):
        graph.bypass(quantize, before.input[0])


def _limits_behind(graph: Graph, dequantize) -> tuple[float, float] | None:
    """Return the bounds of the Clip before the QuantizeLinear before a DequantizeLinear."""
    if dequantize.op_type != 'DequantizeLinear':
        return None
    quantize = graph.maker(dequantize.input[0])
    clip = None if quantize is None else graph.maker(quantize.input[0])
    return _limits(graph, clip) if clip is not None and clip.op_type == 'Clip' else None


def _share_grid(graph: Graph, dequantize) -> None:
    """Let a DequantizeLinear name the scale and the zero point of the QuantizeLinear before it."""
    quantize = graph.maker(dequantize.input[0])
    if grid_of(graph, dequantize) is None or grid_of(graph, dequantize) != grid_of(graph, quantize):
        return
    graph.connect(dequantize, 1, quantize.input[1])
    if len(quantize.input) > 2:
        if len(dequantize.input) < 3:
            dequantize.input.append(quantize.input[2])
        graph.connect(dequantize, 2, quantize.input[2])


def _part_readers(graph: Graph, dequantize) -> None:
    """Give each reader of a map that is rounded to a second grid a rounding of its own.

    Where only one rounding follows another, ONNX Runtime 1.32 replaces both by one on a third grid,
    which changes values, and computes the convolutions behind in floating point.
    """
    if grid_of(graph, dequantize) is None:
        return
    quantize = graph.maker(dequantize.input[0])
    before = graph.maker(quantize.input[0])
    if before is None or before.op_type != 'DequantizeLinear':
        return
    for number, reader in enumerate(graph.readers(dequantize)[1:]):
        copies = [graph.copy(node, f'_{number}') for node in (quantize, dequantize)]
        graph.connect(copies[1], 0, copies[0].output[0])
        for position, read in enumerate(reader.input):
            if read == dequantize.output[0]:
                graph.connect(reader, position, copies[1].output[0])


def _absorb(graph: Graph, activation) -> None:
    """Remove a Relu or Clip where saturation has the same effect in all that reads it."""
    readers = graph.readers(activation)
    if graph.is_output(activation) or not readers:
        return
    low, high = _limits(graph, activation)
    before = graph.maker(activation.input[0])
    if before is not None and before.op_type in ('Relu', 'Clip'):
        bounds = _limits(graph, before)
        low, high = (-np.inf if low <= bounds[0] else low), (np.inf if high >= bounds[1] else high)
    if all(_saturates(graph, reader, low, high) for reader in readers):
        graph.bypass(activation, activation.input[0])


def _saturates(graph: Graph, quantize, low: float, high: float) -> bool:
    """Tell whether a QuantizeLinear gives all values beyond the bounds the level of the bound."""
    grid = grid_of(graph, quantize) if quantize.op_type == 'QuantizeLinear' else None
    if grid is None:
        return False
    scale, zero, kind = grid
    limits = np.iinfo(kind)
    lowest, highest = (np.rint(np.float32(x) / np.float32(scale)) + zero for x in (low, high))
    return bool(lowest <= limits.min and highest >= limits.max)
