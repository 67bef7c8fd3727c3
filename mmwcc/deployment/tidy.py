"""Changes of an exported graph after which runtimes compute it in integers.

None of them changes what the graph returns. A runtime computes a convolution in integers where
DequantizeLinear stands before it and QuantizeLinear behind it, with nothing between.
"""

from __future__ import annotations

import numpy as np

from .graph import Graph

__all__ = ['tidy']


def tidy(model, integer_sums: bool = False, early_concat: bool = False) -> None:
    """Remove what keeps runtimes from computing a graph in integers, in place.

    Args:
        model: An ONNX model.
        integer_sums: Whether convolutions whose sums are not rounded at once become ConvInteger.
            Defaults to False.
        early_concat: Whether maps are rounded before a concatenation that is rounded twice behind
            it. Defaults to False.
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
            _sum_integers(graph, conv)
    graph.write()


def _round_before(graph: Graph, concat) -> None:
    """Round what a concatenation reads, in place of its result, if that is rounded once more."""
    readers = graph.readers(concat)
    if len(readers) != 1 or _grid(graph, readers[0]) is None or graph.is_output(concat):
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


def _grid(graph: Graph, node) -> tuple[float, int, np.dtype] | None:
    """Return scale, zero point and type of a QuantizeLinear, or of the DequantizeLinear behind."""
    quantize = node if node.op_type == 'QuantizeLinear' else graph.maker(node.input[0])
    if quantize is None or quantize.op_type != 'QuantizeLinear':
        return None
    scale, zero = graph.constant(node, 1), graph.constant(quantize, 2, np.uint8(0))
    point = graph.constant(node, 2, zero.dtype.type(0)) if zero is not None else None
    if scale is None or scale.size != 1 or point is None:
        return None
    return float(scale.item()), int(point.item()), zero.dtype


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
    if _grid(graph, before) is not None and _grid(graph, before) == _grid(graph, quantize):
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
    if _grid(graph, dequantize) is None or _grid(graph, dequantize) != _grid(graph, quantize):
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
    if _grid(graph, dequantize) is None:
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
    grid = _grid(graph, quantize) if quantize.op_type == 'QuantizeLinear' else None
    if grid is None:
        return False
    scale, zero, kind = grid
    limits = np.iinfo(kind)
    lowest, highest = (np.rint(np.float32(x) / np.float32(scale)) + zero for x in (low, high))
    return bool(lowest <= limits.min and highest >= limits.max)


def _sum_integers(graph: Graph, conv) -> None:
    """Write a convolution of integers whose sums are not rounded at once as ConvInteger.

    Its weights become uint8, for which ONNX Runtime has fast code: 256 to 256 channels at 64x64
    take 3.4 ms on one core of an AVX-512 VNNI Xeon, 55 ms with int8, and 12.3 ms in float32.
    """
    from onnx import helper

    operands = [graph.maker(name) for name in conv.input[:2]]
    if any(node is None or node.op_type != 'DequantizeLinear' for node in operands):
        return
    grid, levels = _grid(graph, operands[0]), graph.constant(operands[1], 0)
    readers = graph.readers(conv)
    if grid is None or grid[2] != np.uint8 or levels is None or levels.dtype != np.int8:
        return
    if not graph.is_output(conv) and all(node.op_type == 'QuantizeLinear' for node in readers):
        return
    name, weight = conv.output[0], operands[1].input[0]
    shifted = graph.add_constant((levels.astype(np.int16) + 128).astype(np.uint8), f'{weight}_u8')
    inputs = [operands[0].input[0], shifted]
    inputs += [graph.add_constant(np.uint8(point), f'point_{point}') for point in (grid[1], 128)]
    scale = np.float32(grid[0]) * graph.constant(operands[1], 1).reshape(-1, 1, 1)
    new = [
        helper.make_node('ConvInteger', inputs, [f'{name}_sum']),
        helper.make_node('Cast', [f'{name}_sum'], [f'{name}_float'], to=1),
        helper.make_node(
            'Mul', [f'{name}_float', graph.add_constant(scale, f'{name}_scale')], [name]
        ),
    ]
    new[0].attribute.extend(conv.attribute)
    if len(conv.input) > 2:
        new[-1].output[0] = f'{name}_scaled'
        bias = graph.add_constant(_values(graph, conv.input[2]), f'{name}_bias')
        new.append(helper.make_node('Add', [f'{name}_scaled', bias], [name]))
    graph.replace(conv, new)


def _values(graph: Graph, name: str) -> np.ndarray:
    """Return the values of a bias for each channel, shape (O, 1, 1)."""
    if name in graph.constants:
        return graph.constants[name].reshape(-1, 1, 1)
    dequantize = graph.maker(name)
    levels, scale = graph.constant(dequantize, 0), graph.constant(dequantize, 1)
    return (levels.astype(np.float32) * scale).reshape(-1, 1, 1)
