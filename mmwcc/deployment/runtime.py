"""Run ONNX files in the runtimes that they are written for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .targets import TARGETS, Target

__all__ = [
    'ExportError',
    'compile_openvino',
    'integer_convolutions',
    'load_graph',
    'open_runner',
    'open_session',
    'run_graph',
]

Runner = Callable[[np.ndarray], list[np.ndarray]]


class ExportError(RuntimeError):
    """A model could not be exported, or the exported file does not match it."""


def load_graph(path: str | Path):
    """Read and check an ONNX file.

    Raises:
        ModuleNotFoundError: If onnx is missing.
    """
    import onnx

    model = onnx.load(path)
    onnx.checker.check_model(model)
    return model


def open_session(model, optimized: str = ''):
    """Return an ONNX Runtime session on the CPU, with as many threads as torch has.

    Args:
        model: What :func:`load_graph` returns.
        optimized: File to which ONNX Runtime writes the graph that it runs. Defaults to '', none.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    options.optimized_model_filepath = optimized
    # Otherwise its threads spin after a run and take the cores from the next program, such as torch
    # in a comparison.
    options.add_session_config_entry('session.force_spinning_stop', '1')
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=['CPUExecutionProvider']
    )


def compile_openvino(model: str | Path | bytes, precision: str = 'f32'):
    """Return a graph compiled by OpenVINO for the CPU, with as many threads as torch has.

    Args:
        model: The path of a file that OpenVINO reads, or the content of an ONNX file.
        precision: What it computes in where the graph says floating point: 'f32' or 'bf16'.
            Defaults to 'f32'; by itself, it would take bfloat16 on some processors.
    """
    import openvino

    hints = {
        'INFERENCE_NUM_THREADS': torch.get_num_threads(),
        'INFERENCE_PRECISION_HINT': precision,
        'PERFORMANCE_HINT': 'LATENCY',
    }
    core = openvino.Core()
    return core.compile_model(core.read_model(model), 'CPU', hints)


def open_runner(model, target: Target = TARGETS['onnxruntime']) -> Runner:
    """Return a function from an image to the outputs of a graph, computed by a runtime.

    Args:
        model: What :func:`load_graph` returns.
        target: The runtime for which it was written. Defaults to ONNX Runtime.
    """
    if target.package == 'openvino':
        compiled = compile_openvino(model.SerializeToString())
        return lambda x: [np.array(value) for value in compiled(x).values()]
    session, name = open_session(model), model.graph.input[0].name
    return lambda x: session.run(None, {name: x})


def run_graph(model, x: Tensor) -> list[np.ndarray]:
    """Return the outputs of a graph for an image, computed by ONNX Runtime."""
    return open_runner(model)(x.numpy())


def integer_convolutions(model, target: Target = TARGETS['onnxruntime']) -> tuple[int, int]:
    """Return how many convolutions a runtime computes in integers, and how many there are.

    Args:
        model: What :func:`load_graph` returns.
        target: The runtime. Defaults to ONNX Runtime.
    """
    if target.package == 'openvino':
        kinds = _openvino_precisions(model)
    else:
        kinds = _onnxruntime_operators(model)
    return sum(kinds), len(kinds)


def _onnxruntime_operators(model) -> list[bool]:
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'optimized.onnx')
        open_session(model, path)
        nodes = onnx.load(path).graph.node
    # 'QLinearConv', 'ConvInteger'; 'Conv', 'FusedConv' and others with an activation
    kinds = [node.op_type for node in nodes if 'Conv' in node.op_type]
    return [kind in ('QLinearConv', 'ConvInteger') for kind in kinds]


def _openvino_precisions(model) -> list[bool]:
    nodes = [
        node.get_rt_info()
        for node in compile_openvino(model.SerializeToString()).get_runtime_model().get_ops()
    ]
    kinds = [
        info['runtimePrecision'].astype(str)
        for info in nodes
        if info['layerType'].astype(str) == 'Convolution'
    ]
    return [kind in ('i8', 'u8') for kind in kinds]
