"""What tools/benchmarks/wae.py computes; the timing itself is a run, not a test."""
import importlib.util
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmdet')
FILE = Path(__file__).resolve().parents[1] / 'tools' / 'benchmarks' / 'wae.py'


@pytest.fixture(scope='module')
def benchmark():
    spec = importlib.util.spec_from_file_location('mmwcc_benchmark_wae', FILE)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FILE.parent))  # what the benchmarks share
        spec.loader.exec_module(module)
    return module


def test_gate(benchmark):
    with torch.device('meta'):
        model = benchmark.build(benchmark.shipped('vgg16_wae-stage3_8xb32-10e'))
        benchmark.gate('vgg16', model)
        model.head.fc[0] = torch.nn.Linear(8192, 512)
        model.head.fc[3] = torch.nn.Linear(512, 1024)
        with pytest.raises(SystemExit, match='must cost .* so nothing was timed'):
            benchmark.gate('vgg16', model)


@pytest.mark.parametrize(('network', 'bound'), [('vgg16', 3.53), ('resnet50', 2.89)])
def test_bound(benchmark, network, bound):
    """How many times less multiply-accumulates the whole of a WAE network has, everything counted."""
    with torch.device('meta'):
        models = [benchmark.build(benchmark.shipped(f'{network}_{kind}'))
                  for kind in ('dense_8xb32-90e', 'wae-stage3_8xb32-10e')]
        dense, wae = (benchmark.multiply_accumulates(model, torch.zeros(1, 3, 224, 224)) for model in models)
    assert round(dense.total() / wae.total(), 2) == bound


def test_medians(benchmark):
    calls = []
    times = benchmark.medians(dict(a=lambda: calls.append('a'), b=lambda: calls.append('b')), seconds=0)
    assert set(times) == {'a', 'b'} and calls == ['a', 'b'] * 4  # one to warm up and at least three
