"""What tools/benchmarks/waveletnet.py computes; timing itself is a run, not a test."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmcv', reason='backbones need mmcv')

FOLDER = Path(__file__).parents[2] / 'tools' / 'benchmarks'


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location('waveletnet_benchmark', FOLDER / 'waveletnet.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'PROJECTIONS', ((4, 16, 8),))
    monkeypatch.setattr(module, 'BATCHES', (1,))
    monkeypatch.setattr(module, 'NETWORKS', dict(dense=(0, 0, 0)))
    return module


def test_rows(bench, tmp_path):
    bench.main(['--threads', '1', '--seconds', '0', '--out', str(tmp_path / 'out.json')])
    written = json.loads((tmp_path / 'out.json').read_text())
    assert written['benchmark'] == 'waveletnet' and written['environment']['threads'] == 1
    layers, network = written['rows'][:-1], written['rows'][-1]
    assert [row['kind'] for row in layers] == ['forward', 'step']
    assert all(
        set(row['ms']) == {'dense', 'fused', 'joined'} and min(row['ms'].values()) > 0
        for row in layers
    )
    assert network['ms']['dense'] > 0


def test_the_kinds_of_a_projection_share_their_weights(bench):
    kinds = bench.projections(16, 8)
    x = torch.randn(2, 16, 3, 3)
    torch.testing.assert_close(kinds['fused'](x), kinds['joined'](x))


def test_nothing_is_timed_behind_a_red_gate(bench, monkeypatch):
    monkeypatch.setattr(bench.DepthwiseFastWaveletTransform, 'forward', lambda self, x: 2 * x)
    with pytest.raises(
        SystemExit, match='both ways of the projection must agree.*so nothing was timed'
    ):
        bench.main(['--threads', '1', '--seconds', '0'])
