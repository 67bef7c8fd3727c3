"""Compare a runtime with torch in values and in time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmwcc.messages import cause

from .runtime import ExportError, open_runner
from .targets import TARGETS, Target

__all__ = ['Parity', 'compare']

# As a fraction of the standard deviation of the image: enough to move values at the boundary
# between two levels.
_NUDGE = 1e-5
_ROOM = 3


@dataclass(frozen=True)
class Parity:
    """Comparison of a runtime with torch at one size.

    Attributes:
        size: Height and width of the image.
        largest: Largest difference of an output, or the fraction of pixels with another class.
        mean: Mean difference relative to the mean magnitude, or the fraction of pixels with another
            class.
        sensitivity: Like ``mean``, for the model against itself after noise of 1e-5 of the image's
            standard deviation was added to the image.
        from_model: Largest difference from the model that keeps the k largest, if thresholds
            replace them.
        torch_ms: Median latency of the model in ms.
        onnx_ms: Median latency of the graph in the runtime in ms.
    """

    size: tuple[int, int]
    largest: float
    mean: float
    sensitivity: float
    from_model: float | None
    torch_ms: float
    onnx_ms: float


@torch.no_grad()
def compare(
    graph,
    reference: nn.Module,
    x: Tensor,
    model: nn.Module,
    repeats: int = 5,
    target: Target = TARGETS['onnxruntime'],
) -> Parity:
    """Compare a graph with torch on one input.

    Args:
        graph: What :func:`load_graph` returns.
        reference: The module that computes what the graph should compute.
        x: An image, shape (B, C, H, W).
        model: The trained network, whose latency is measured. If it is not the reference, the
            difference from it is reported too.
        repeats: Number of runs. Their median is the latency. Defaults to 5.
        target: The runtime. Defaults to ONNX Runtime.

    Returns:
        The differences and latencies.

    Raises:
        ExportError: If the graph cannot run at this size, or its outputs have other shapes or other
            values.

    Note:
        Quantizers and selections are step functions. A value at the boundary between two levels, or
        a position that is only just kept, may fall to either side depending on the last bit of a
        sum, and each layer amplifies the difference. So the tolerance depends on the model's own
        sensitivity: the mean difference may be at most the tolerance of the target, which is a
        thousandth of the mean magnitude (or of the pixels, for classes) for ONNX Runtime and a
        twentieth if it computes in integers, plus three times the change that torch shows if the
        image changes by 1e-5.
    """
    size = x.shape[2], x.shape[3]
    try:
        run = open_runner(graph, target)
        got = run(x.numpy())
    except Exception as error:  # runtimes raise classes of their own
        raise ExportError(
            f'export_onnx: the graph must run at {size[0]}x{size[1]}, got {cause(error)}. '
            'A size was frozen at the one that was traced.'
        ) from error
    expected = _tensors(reference(x))
    largest, mean = _difference(got, expected, size)
    nudge = _NUDGE * x.std() * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    _, sensitivity = _difference(_tensors(reference(x + nudge)), expected, size)
    if not mean <= _tolerance(graph, target) + _ROOM * sensitivity:
        raise ExportError(
            f'export_onnx: {target.runner} must return what torch does, got a mean difference of '
            f'{mean:.3g} of the mean magnitude at {size[0]}x{size[1]}, where the model moves by '
            f'{sensitivity:.3g} with the image. The graph is not the model.'
        )
    from_model = None if reference is model else _difference(got, _tensors(model(x)), size)[0]
    return Parity(
        size,
        largest,
        mean,
        sensitivity,
        from_model,
        _median_ms(lambda: model(x), repeats),
        _median_ms(lambda: run(x.numpy()), repeats),
    )


def _tolerance(graph, target: Target) -> float:
    in_integers = any(node.op_type == 'QuantizeLinear' for node in graph.graph.node)
    return target.integer_tolerance if in_integers else target.tolerance


def _tensors(outputs: Any) -> list[np.ndarray]:
    return [tensor.numpy() for tensor in ((outputs,) if isinstance(outputs, Tensor) else outputs)]


def _difference(
    got: Sequence[np.ndarray], expected: Sequence[np.ndarray], size: tuple[int, int]
) -> tuple[float, float]:
    """Return the largest and the relative mean difference, each for the worst of all outputs."""
    if [one.shape for one in got] != [other.shape for other in expected]:
        raise ExportError(
            f'export_onnx: the outputs must have the shapes {[one.shape for one in expected]} at '
            f'{size[0]}x{size[1]}, got {[one.shape for one in got]}. A size was frozen at the one '
            'that was traced.'
        )
    largest = mean = 0.0
    for one, other in zip(got, expected, strict=True):
        if one.dtype.kind != 'f':
            largest = mean = max(mean, float((one != other).mean()))
            continue
        difference = np.abs(one.astype(np.float64) - other)
        largest = max(largest, float(difference.max(initial=0)))
        mean = max(
            mean, float(difference.mean() / max(np.abs(other).mean(), np.finfo(np.float32).tiny))
        )
    return largest, mean


def _median_ms(function: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)
