"""Images, and quiet exports."""

import pytest
import torch

pytest.importorskip(
    'onnxruntime', reason='exports are checked with ONNX Runtime, of the extra `onnx`'
)
pytest.importorskip('onnxscript', reason="torch's exporters need it; it is in the extra `onnx`")


@pytest.fixture
def images():
    return [torch.randn(1, 3, 64, 96) for _ in range(4)]
