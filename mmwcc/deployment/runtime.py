"""Run ONNX files in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = ['ExportError', 'load_graph', 'open_session', 'run_graph']


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


def open_session(model):
    """Return an ONNX Runtime session on the CPU, with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    # Otherwise its threads spin after a run and take the cores from the next program, such as torch
    # in a comparison.
    options.add_session_config_entry('session.force_spinning_stop', '1')
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=['CPUExecutionProvider']
    )


def run_graph(model, x: Tensor) -> list[np.ndarray]:
    """Return the outputs of a graph for an image, computed by ONNX Runtime."""
    return open_session(model).run(None, {model.graph.input[0].name: x.numpy()})
