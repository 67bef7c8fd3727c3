"""Determine what an exported graph must contain to compress as the network does, and check it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from mmwcc.functional import kept_positions
from mmwcc.inference import act_grid
from mmwcc.kernels import padded_size
from mmwcc.layers import WaveletCompressedConv2d
from mmwcc.quantizers import UniformQuantizer

from .graph import constants as graph_constants
from .layers import is_integer
from .prepare import Call, RawOutputs, live_calls
from .runtime import ExportError, run_graph

__all__ = ['Expected', 'check_graph', 'expected_operators']

_WEIGHTS = {'DequantizeLinear': 0, 'ConvInteger': 1}
"""Which input of an operator may be an integer weight."""


@dataclass(frozen=True)
class Expected:
    """What a graph must contain for inputs of one size.

    Attributes:
        kept: The k of every TopK, in the order of calls.
        thresholds: The thresholds.
        quantized: Number of maps that are quantized by QuantizeLinear.
        rounded: Number of maps that are quantized by Clip and Round.
        integer_weights: Number of layers with int8 weights.
        layers: Number of calls of compressed layers.
    """

    kept: tuple[int, ...] = ()
    thresholds: tuple[float, ...] = ()
    quantized: int = 0
    rounded: int = 0
    integer_weights: int = 0
    layers: int = 0


def expected_operators(
    network: RawOutputs, x: Tensor, qdq: bool, thresholds: Mapping[str, float]
) -> Expected:
    """Run the network on ``x``, and derive from its compressed layers what a graph must contain.

    Args:
        network: The trained network, not the copy that was exported.
        x: An input.
        qdq: Whether quantizers of 8 bits or fewer are written as QuantizeLinear and
            DequantizeLinear.
        thresholds: Thresholds by layer name, empty for TopK.
    """
    recorded = live_calls(network, x)
    calls = [call for call in recorded if not isinstance(call.module, UniformQuantizer)]
    acts = _rounded_maps(recorded)
    quantized = sum(qdq and is_integer(quantizer) for quantizer in acts)
    selecting = {
        (
            image.data_ptr(),
            image.shape,
            layer.stride,
            layer.levels,
            layer.wavelet,
            _kept(layer, image),
        ): name
        for name, layer, image, _ in calls
        if isinstance(layer, WaveletCompressedConv2d)
        and layer.selection == 'energy'
        and layer.keep_ratio < 1
    }
    return Expected(
        () if thresholds else tuple(key[-1] for key in selecting),
        tuple(thresholds[name] for name in selecting.values()) if thresholds else (),
        quantized,
        len(acts) - quantized,
        len({name for name, layer, *_ in calls if qdq and is_integer(layer.weight_quant)}),
        len(calls),
    )


def _rounded_maps(calls: Iterable[Call]) -> list[UniformQuantizer]:
    """Return a quantizer for each map that is rounded by itself.

    Exporters merge equal computations on one map, as in branches that share their input and have
    equal clips. A layer that reads a stored map on the grid of this map rounds nothing.
    """
    acts: dict[tuple, UniformQuantizer] = {}
    stored: dict[tuple, tuple] = {}
    for _, module, image, output in calls:
        of_map = isinstance(module, UniformQuantizer)
        quantizer = module if of_map else module.act_quant
        if quantizer is None or not quantizer.is_on:
            continue
        place, grid = (image.data_ptr(), image.shape), _levels(quantizer)
        if of_map:
            stored[output.data_ptr(), output.shape] = grid
        elif stored.get(place) == grid:
            continue
        stride = module.stride if isinstance(module, WaveletCompressedConv2d) else None
        acts[place + (stride, grid)] = quantizer
    return list(acts.values())


def _levels(quantizer: UniformQuantizer) -> tuple[float, int, int]:
    step, low, high = act_grid(quantizer)
    return step.item(), low, high


def _kept(layer: WaveletCompressedConv2d, x: Tensor) -> int:
    height, width = (
        padded_size(-(-size // stride), layer.levels)
        for size, stride in zip(x.shape[2:], layer.stride, strict=True)
    )
    return kept_positions(height * width, layer.keep_ratio)


def check_graph(model, inputs: Sequence[Tensor], expected: Sequence[Expected]) -> None:
    """Reject a graph that does not compress as the network does, or is fixed to one input size.

    Args:
        model: What :func:`load_graph` returns.
        inputs: Images of one or more sizes.
        expected: What the graph must contain for each of them.

    Raises:
        ExportError: If something is missing, or a k does not follow the size.
    """
    constants = graph_constants(model)
    found = Counter(node.op_type for node in model.graph.node)
    holds = expected[0]
    weights = [
        constants.get(node.input[_WEIGHTS[node.op_type]])
        for node in model.graph.node
        if node.op_type in _WEIGHTS
    ]
    integers = sum(weight is not None and weight.dtype != np.int32 for weight in weights)
    _require('QuantizeLinear', found['QuantizeLinear'], holds.quantized)
    _require('Round', found['Round'], holds.rounded)
    _require('int8 weights', integers, holds.integer_weights)
    _require('TopK', found['TopK'], len(holds.kept))
    if holds.thresholds:
        _check_thresholds(model, constants, found, holds.thresholds)
    if holds.kept:
        _check_kept(model, inputs, expected)


def _require(what: str, found: int, expected: int) -> None:
    if found < expected:
        raise ExportError(
            f'export_onnx: the graph must hold {expected} {what}, one for each map that needs it, '
            f'got {found}. The export lost the compression of {expected - found} layers.'
        )


def _check_thresholds(
    model,
    constants: Mapping[str, np.ndarray],
    found: Mapping[str, int],
    thresholds: Sequence[float],
) -> None:
    compared = Counter(
        float(constants[name])
        for node in model.graph.node
        if node.op_type in ('GreaterOrEqual', 'Greater', 'Less', 'LessOrEqual')
        for name in node.input
        if name in constants and constants[name].size == 1
    )
    missing = Counter(float(np.float32(threshold)) for threshold in thresholds) - compared
    if missing:
        raise ExportError(
            f'export_onnx: the graph must compare with {len(thresholds)} thresholds, got '
            f'{sum(missing.values())} of them missing. The export lost the compression of these '
            'layers.'
        )
    left = [kind for kind in ('TopK', 'ScatterND', 'ScatterElements') if found[kind]]
    if left:
        raise ExportError(
            f'export_onnx: a graph with thresholds must hold no {" or ".join(left)}. Something '
            'besides the compressed layers selects or scatters.'
        )


def _check_kept(model, inputs: Sequence[Tensor], expected: Sequence[Expected]) -> None:
    """Run the graph with the k of every TopK as an output, and compare it with the network."""
    import onnx

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    names = list(
        dict.fromkeys(node.input[1] for node in probe.graph.node if node.op_type == 'TopK')
    )
    uses = [node.input[1] for node in probe.graph.node if node.op_type == 'TopK']
    del probe.graph.output[:]
    for name in names:
        probe.graph.node.append(onnx.helper.make_node('Identity', [name], [f'{name}_probed']))
        probe.graph.output.append(
            onnx.helper.make_tensor_value_info(f'{name}_probed', onnx.TensorProto.INT64, None)
        )
    for x, holds in zip(inputs, expected, strict=True):
        values = dict(zip(names, (int(value.item()) for value in run_graph(probe, x)), strict=True))
        wrong = Counter(holds.kept) - Counter(values[name] for name in uses)
        if wrong:
            raise ExportError(
                'export_onnx: k of every TopK must follow the size of the input, got graphs '
                f'without k={sorted(wrong)[0]} for an input of {x.shape[2]}x{x.shape[3]}. The k '
                'was frozen at the size that was traced.'
            )
