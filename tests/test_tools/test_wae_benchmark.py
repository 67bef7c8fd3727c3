"""What tools/benchmarks/wae.py computes; the timing itself is a run, not a test."""

import importlib.util
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip('mmdet')
pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')
FILE = Path(__file__).resolve().parents[2] / 'tools' / 'benchmarks' / 'wae.py'


@pytest.fixture(scope='module')
def benchmark():
    spec = importlib.util.spec_from_file_location('mmwcc_benchmark_wae', FILE)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FILE.parent))  # what the benchmarks share
        spec.loader.exec_module(module)
    return module


def test_check_costs(benchmark):
    with torch.device('meta'):
        model = benchmark.build(benchmark.shipped('vgg16_wae-stage3_8xb32-10e'))
        benchmark.check_costs('vgg16', model)
        model.head.fc[0] = nn.Linear(8192, 512)
        model.head.fc[3] = nn.Linear(512, 1024)
        with pytest.raises(SystemExit, match='must cost .* so nothing was timed'):
            benchmark.check_costs('vgg16', model)


@pytest.mark.parametrize(('network', 'bound'), [('vgg16', 3.53), ('resnet50', 2.89)])
def test_bound(benchmark, network, bound):
    """How many times less multiply-accumulates the whole of a WAE network has, everything
    counted.
    """
    with torch.device('meta'):
        models = [
            benchmark.build(benchmark.shipped(f'{network}_{kind}'))
            for kind in ('dense_8xb32-90e', 'wae-stage3_8xb32-10e')
        ]
        dense, wae = (
            benchmark.multiply_accumulates(model, torch.zeros(1, 3, 224, 224)) for model in models
        )
    assert round(dense.total() / wae.total(), 2) == bound


@pytest.fixture
def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9 * 7, 2)
    ).eval()


def test_exported(benchmark, network):
    """ONNX Runtime gets images anew with every call."""
    x = torch.randn(2, 3, 11, 9)
    session = benchmark.exported(network, torch.zeros_like(x))
    torch.testing.assert_close(session(x), network(x))


def test_forms_return_the_same(benchmark, network, monkeypatch):
    x = torch.randn(1, 3, 11, 9)
    monkeypatch.setattr(benchmark, 'compiled', lambda model, x: deepcopy(model))
    calls = benchmark.forms(network, x)
    assert list(calls) == ['contiguous', 'channels_last', 'frozen', 'compiled', 'onnxruntime']
    for run in calls.values():
        torch.testing.assert_close(run(), network(x))
    monkeypatch.setattr(benchmark, 'compiled', lambda model, x: lambda x: 1.001 * model(x))
    with pytest.raises(
        SystemExit, match='compiled returns what .* but the relative error is 1.0e-03'
    ):
        benchmark.forms(network, x)


def test_fold_keeps_the_outputs(benchmark):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    nn.init.uniform_(network[1].running_var, 1, 2)
    folded, x = benchmark.fold(network, (5, 6)), torch.randn(1, 3, 5, 6)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    torch.testing.assert_close(folded(x), network(x))
