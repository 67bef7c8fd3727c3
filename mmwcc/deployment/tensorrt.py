"""The rules of TensorRT's documentation for quantized graphs, checked without TensorRT."""

from __future__ import annotations

import numpy as np

from .graph import Graph
from .runtime import ExportError

__all__ = ['check_tensorrt']

_LARGEST_K = 3840


def check_tensorrt(model) -> None:
    """Reject a graph that TensorRT would refuse, or compute in floating point.

    The rules are those of "Working with Quantized Types" and of the list of operators in the
    documentation of TensorRT. The graph is not run.

    Args:
        model: What :func:`load_graph` returns.

    Raises:
        ExportError: If the graph breaks a rule.
    """
    graph = Graph(model)
    for node in graph.of_type('QuantizeLinear', 'DequantizeLinear'):
        _check_grid(graph, node)
    for node in graph.of_type('TopK'):
        _check_topk(graph, node)


def _check_grid(graph: Graph, node) -> None:
    scale, zero = graph.constant(node, 1), graph.constant(node, 2, np.zeros((), np.uint8))
    if scale is None or not (scale > 0).all():
        raise ExportError(
            f'check_tensorrt: the scale of {node.op_type} must be positive and constant, got '
            f'another one at {node.output[0]}. Export the model with other clips.'
        )
    quantize = node
    if node.op_type == 'DequantizeLinear':
        levels = graph.constant(node, 0)
        if levels is not None:
            zero = zero.astype(levels.dtype)
        else:
            quantize = graph.maker(node.input[0])
    if quantize is not None and quantize.op_type == 'QuantizeLinear':
        zero = graph.constant(quantize, 2, np.zeros((), np.uint8))
    if zero is None or zero.dtype != np.int8 or zero.any():
        raise ExportError(
            'check_tensorrt: levels must be int8 with zero point 0, got '
            f'{"others" if zero is None else zero.dtype} at {node.output[0]}. Unsigned maps, as '
            'behind ReLU, are uint8: train with act_quant=dict(signed=True) and, for scales of '
            'maps, maps=dict(signed=True), or export with --no-qdq.'
        )


def _check_topk(graph: Graph, node) -> None:
    k = graph.constant(node, 1)
    if k is None or k.item() > _LARGEST_K:
        got = 'a k that depends on the input' if k is None else f'k={k.item()}'
        raise ExportError(
            f'check_tensorrt: TopK must have a constant k of at most {_LARGEST_K}, got {got}. '
            'Export with --selection threshold.'
        )
