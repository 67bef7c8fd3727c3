"""What an exported graph must hold, and how close ONNX Runtime comes to the model."""
from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmwcc.functional import kept_positions
from mmwcc.kernels import padded_size
from mmwcc.layers import WaveletCompressedConv2d

from .layers import is_integer
from .prepare import RawOutputs, live_calls

__all__ = ['Expected', 'ExportError', 'ExportReport', 'Parity', 'check_graph', 'compare', 'expected_operators',
           'load_graph', 'run_graph']

_TOLERANCE = 1e-3
_NUDGE = 1e-5  # of the deviation of the image: enough to move values at the edge of two levels
_ROOM = 3


class ExportError(RuntimeError):
    """What was exported is not the model, or could not be exported."""


@dataclass(frozen=True)
class Expected:
    """What a graph must hold for inputs of one size.

    Attributes:
        kept: The k of every TopK, in order of calls.
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


@dataclass(frozen=True)
class Parity:
    """How ONNX Runtime compares with torch at one size.

    Attributes:
        size: Height and width of the image.
        largest: Largest difference of an output, or the share of pixels with another class.
        mean: Mean difference relative to the mean magnitude, or the share of pixels with another class.
        sensitivity: As mean, of the model from itself when noise of 1e-5 of its deviation is added to the image.
        from_model: Largest difference from the model that keeps the k largest, where thresholds take their place.
        torch_ms: Median latency of the model in ms.
        onnx_ms: Median latency of the graph in ONNX Runtime in ms.
    """
    size: tuple[int, int]
    largest: float
    mean: float
    sensitivity: float
    from_model: float | None
    torch_ms: float
    onnx_ms: float


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        path: The file.
        exporter: 'dynamo' or 'torchscript'.
        opset: Version of ONNX's operators.
        note: Why another exporter was not used, or empty.
        dynamic: Whether height and width are open.
        bytes: Size of the file.
        expected: What the graph holds at the first size.
        parities: One entry a size.
        kept: Fraction of positions that thresholds keep, by layer; empty without thresholds.
    """
    path: Path
    exporter: str
    opset: int
    note: str
    dynamic: bool
    bytes: int
    expected: Expected
    parities: list[Parity]
    kept: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        holds = self.expected
        lines = [f'{self.path}: {self.bytes:,} bytes, {self.exporter} exporter, opset {self.opset}, '
                 f"{'dynamic' if self.dynamic else 'static'} height and width"]
        lines += [f'not used: {self.note.strip()}'] if self.note else []
        lines.append(f'{holds.layers} calls of compressed layers: {len(holds.kept)} TopK, {len(holds.thresholds)} '
                     f'thresholds, {holds.quantized} QuantizeLinear, {holds.rounded} Clip and Round, '
                     f'{holds.integer_weights} int8 weights')
        if self.kept:
            values = list(self.kept.values())
            lines.append(f'thresholds keep {100 * statistics.mean(values):.1f} % of the positions of calibration '
                         f'images ({100 * min(values):.1f} to {100 * max(values):.1f} % a layer)')
        for parity in self.parities:
            line = (f'{parity.size[0]}x{parity.size[1]}: largest difference {parity.largest:.3g}, mean '
                    f'{parity.mean:.2g} of the mean magnitude (torch with the image moved by 1e-5: '
                    f'{parity.sensitivity:.2g}); torch {parity.torch_ms:.1f} ms, ONNX Runtime {parity.onnx_ms:.1f} ms')
            lines.append(line if parity.from_model is None else
                         f'{line}; from the model with the k largest {parity.from_model:.3g}')
        return '\n'.join(lines)


def expected_operators(network: RawOutputs, x: Tensor, qdq: bool, thresholds: Mapping[str, float]) -> Expected:
    """Say what a graph must hold, from the calls of compressed layers while the network itself runs on ``x``.

    Args:
        network: The network that was trained, not the copy that was exported.
        x: An input.
        qdq: Whether quantizers of 8 bits or fewer are written as QuantizeLinear and DequantizeLinear.
        thresholds: Thresholds by name of the layer, empty for TopK.
    """
    calls = live_calls(network, x)
    # Exporters join what is computed twice from one map: branches that share their input, with equal clips.
    acts = {(image.data_ptr(), image.shape, layer.stride if isinstance(layer, WaveletCompressedConv2d) else None,
             layer.act_quant.clip_alpha.item(), layer.act_quant.bits): layer.act_quant for _, layer, image in calls
            if layer.act_quant is not None and layer.act_quant.bits != 32}
    quantized = sum(qdq and is_integer(quantizer) for quantizer in acts.values())
    selecting = {(image.data_ptr(), image.shape, layer.stride, layer.levels, layer.wavelet, _kept(layer, image)): name
                 for name, layer, image in calls if isinstance(layer, WaveletCompressedConv2d)
                 and layer.selection == 'energy' and layer.keep_ratio < 1}
    return Expected(() if thresholds else tuple(key[-1] for key in selecting),
                    tuple(thresholds[name] for name in selecting.values()) if thresholds else (), quantized,
                    len(acts) - quantized,
                    len({name for name, layer, _ in calls if qdq and is_integer(layer.weight_quant)}), len(calls))


def _kept(layer: WaveletCompressedConv2d, x: Tensor) -> int:
    height, width = (padded_size(-(-size // stride), layer.levels)
                     for size, stride in zip(x.shape[2:], layer.stride, strict=True))
    return kept_positions(height * width, layer.keep_ratio)


def load_graph(path: str | Path):
    """Read and check an ONNX file.

    Raises:
        ModuleNotFoundError: If onnx or onnxruntime is missing.
    """
    import onnx
    import onnxruntime  # noqa: F401  (before any work is done)
    model = onnx.load(path)
    onnx.checker.check_model(model)
    return model


def _session(model):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=['CPUExecutionProvider'])


def run_graph(model, x: Tensor) -> list[np.ndarray]:
    """Return the outputs of a graph for an image, on ONNX Runtime."""
    return _session(model).run(None, {model.graph.input[0].name: x.numpy()})


def check_graph(model, inputs: Sequence[Tensor], expected: Sequence[Expected]) -> None:
    """Refuse a graph that does not compress as the network does, or that follows the size of another input.

    Args:
        model: What :func:`load_graph` returns.
        inputs: Images of one or more sizes.
        expected: What the network does for each.

    Raises:
        ExportError: If something is missing, or a k is not the one of the size.
    """
    constants = _constants(model)
    found = Counter(node.op_type for node in model.graph.node)
    holds = expected[0]
    weights = [constants.get(node.input[0]) for node in model.graph.node if node.op_type == 'DequantizeLinear']
    integers = sum(weight is not None and weight.dtype == np.int8 for weight in weights)
    _require('QuantizeLinear', found['QuantizeLinear'], holds.quantized)
    _require('Round', found['Round'], holds.rounded)
    _require('DequantizeLinear of int8 weights', integers, holds.integer_weights)
    _require('TopK', found['TopK'], len(holds.kept))
    if holds.thresholds:
        _check_thresholds(model, constants, found, holds.thresholds)
    if holds.kept:
        _check_kept(model, inputs, expected)


def _constants(model) -> dict[str, np.ndarray]:
    constants = {tensor.name: _array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == 'Constant' and node.attribute[0].name == 'value':
            constants[node.output[0]] = _array(node.attribute[0].t)
        elif node.op_type == 'Identity' and node.input[0] in constants:  # weights that are equal are stored once
            constants[node.output[0]] = constants[node.input[0]]
    return constants


def _array(tensor) -> np.ndarray:
    from onnx import numpy_helper
    return numpy_helper.to_array(tensor)


def _require(what: str, found: int, expected: int) -> None:
    if found < expected:
        raise ExportError(f'export_onnx: the graph must hold {expected} {what}, one for each map that needs it, '
                          f'got {found}. The export lost the compression of {expected - found} layers.')


def _check_thresholds(model, constants: Mapping[str, np.ndarray], found: Mapping[str, int],
                      thresholds: Sequence[float]) -> None:
    compared = Counter(float(constants[name]) for node in model.graph.node
                       if node.op_type in ('GreaterOrEqual', 'Greater', 'Less', 'LessOrEqual')
                       for name in node.input if name in constants and constants[name].size == 1)
    missing = Counter(float(np.float32(threshold)) for threshold in thresholds) - compared
    if missing:
        raise ExportError(f'export_onnx: the graph must compare with {len(thresholds)} thresholds, got '
                          f'{sum(missing.values())} of them missing. The export lost the compression of these layers.')
    left = [kind for kind in ('TopK', 'ScatterND', 'ScatterElements') if found[kind]]
    if left:
        raise ExportError(f"export_onnx: a graph with thresholds must hold no {' or '.join(left)}. Something besides "
                          'the compressed layers selects or scatters.')


def _check_kept(model, inputs: Sequence[Tensor], expected: Sequence[Expected]) -> None:
    """Run the graph with the k of every TopK as an output, and compare."""
    import onnx
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    names = list(dict.fromkeys(node.input[1] for node in probe.graph.node if node.op_type == 'TopK'))
    uses = [node.input[1] for node in probe.graph.node if node.op_type == 'TopK']
    del probe.graph.output[:]
    for name in names:
        probe.graph.node.append(onnx.helper.make_node('Identity', [name], [f'{name}_probed']))
        probe.graph.output.append(onnx.helper.make_tensor_value_info(f'{name}_probed', onnx.TensorProto.INT64, None))
    for x, holds in zip(inputs, expected, strict=True):
        values = dict(zip(names, (int(value.item()) for value in run_graph(probe, x)), strict=True))
        wrong = Counter(holds.kept) - Counter(values[name] for name in uses)
        if wrong:
            raise ExportError(f'export_onnx: k of every TopK must follow the size of the input, got graphs without '
                              f'k={sorted(wrong)[0]} for an input of {x.shape[2]}x{x.shape[3]}. The k was frozen at '
                              'the size that was traced.')


@torch.no_grad()
def compare(graph, reference: nn.Module, x: Tensor, model: nn.Module, repeats: int = 5) -> Parity:
    """Compare a graph with torch on one input.

    Args:
        graph: What :func:`load_graph` returns.
        reference: The module that computes what the graph is to compute.
        x: An image, shape (B, C, H, W).
        model: The trained network, whose latency is measured; where it is not the reference, the difference from it is
            reported too.
        repeats: Runs of which the median is the latency. Defaults to 5.

    Returns:
        The differences and latencies.

    Raises:
        ExportError: If the graph cannot run at this size, or its outputs have other shapes or other values.

    Note:
        Quantizers and selections make steps: a value at the edge of two levels, or a position at the edge of being
        kept, falls to either side with the last bit of a sum, and layer after layer multiplies that. So a model is
        compared with its own sensitivity: the mean difference may be a thousandth of the mean magnitude (or of the
        pixels, for classes) and three times what a change of the image by 1e-5 makes in torch.
    """
    session, feeds = _session(graph), {graph.graph.input[0].name: x.numpy()}
    size = tuple(x.shape[2:])
    try:
        got = session.run(None, feeds)
    except Exception as error:  # onnxruntime raises classes of its own
        raise ExportError(f'export_onnx: the graph must run at {size[0]}x{size[1]}, got {error}. A size was frozen at '
                          'the one that was traced.') from error
    expected = _tensors(reference(x))
    largest, mean = _difference(got, expected, size)
    nudge = _NUDGE * x.std() * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    _, sensitivity = _difference(_tensors(reference(x + nudge)), expected, size)
    if not mean <= _TOLERANCE + _ROOM * sensitivity:
        raise ExportError(f'export_onnx: ONNX Runtime must return what torch does, got a mean difference of {mean:.3g} '
                          f'of the mean magnitude at {size[0]}x{size[1]}, where the model moves by {sensitivity:.3g} '
                          'with the image. The graph is not the model.')
    from_model = None if reference is model else _difference(got, _tensors(model(x)), size)[0]
    return Parity(size, largest, mean, sensitivity, from_model, _median_ms(lambda: model(x), repeats),
                  _median_ms(lambda: session.run(None, feeds), repeats))


def _tensors(outputs: Any) -> list[np.ndarray]:
    return [tensor.numpy() for tensor in ((outputs, ) if isinstance(outputs, Tensor) else outputs)]


def _difference(got: Sequence[np.ndarray], expected: Sequence[np.ndarray],
                size: tuple[int, int]) -> tuple[float, float]:
    """Return the largest and the relative mean difference of outputs, each the worst of all outputs."""
    if [one.shape for one in got] != [other.shape for other in expected]:
        raise ExportError(f'export_onnx: the outputs must have the shapes {[one.shape for one in expected]} at '
                          f'{size[0]}x{size[1]}, got {[one.shape for one in got]}. A size was frozen at the one that '
                          'was traced.')
    largest = mean = 0.0
    for one, other in zip(got, expected, strict=True):
        if one.dtype.kind != 'f':
            largest = mean = max(mean, float((one != other).mean()))
            continue
        difference = np.abs(one.astype(np.float64) - other)
        largest = max(largest, float(difference.max(initial=0)))
        mean = max(mean, float(difference.mean() / max(np.abs(other).mean(), np.finfo(np.float32).tiny)))
    return largest, mean


def _median_ms(function: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)
