"""Checkpoints of version 0.1 load, compute what they computed, and training resumes from them."""

import copy
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parent / 'fixtures' / 'v0_1'
sys.path[:0] = [str(FOLDER), str(FOLDER.parents[1] / 'test_engine')]
from make import COMPRESSIONS, RUNS, network, run_config  # noqa: E402

from mmwcc.compression import compress_model  # noqa: E402

NETWORKS = [*COMPRESSIONS, 'quant_w8a8_integer', 'wcc_w8a8_integer']


def build(name):
    model = network()
    compression = copy.deepcopy(COMPRESSIONS[name.removesuffix('_integer')])
    if compression is not None:
        compress_model(model, dict(compression, integer=name.endswith('_integer')), verbose=False)
    return model.eval()


def assert_same(output, expected):
    # Another processor sums in another order, which can move single values to the next level.
    scale = expected.abs().max()
    assert ((output - expected).abs() < 1e-5 * scale).float().mean() > 0.99
    assert (output - expected).abs().max() < 0.05 * scale


@pytest.mark.parametrize('assign', [False, True])
@pytest.mark.parametrize('name', NETWORKS)
def test_a_network_of_0_1_computes_what_it_did(name, assign):
    saved = torch.load(FOLDER / 'networks.pth')[name]
    model = build(name)
    model.load_state_dict(saved['state_dict'], assign=assign)
    with torch.no_grad():
        assert_same(model(saved['image']), saved['output'])


@pytest.mark.parametrize('optimizer', RUNS)
def test_a_run_of_0_1_resumes_as_if_it_had_never_stopped(optimizer, tmp_path):
    pytest.importorskip('mmengine')
    from mmengine.runner import Runner

    cfg = run_config(
        tmp_path, optimizer, resume=True, load_from=str(FOLDER / f'run_{optimizer}.pth')
    )
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 9
    finished = torch.load(tmp_path / 'iter_9.pth', weights_only=False)
    expected = torch.load(FOLDER / f'finished_{optimizer}.pth')
    # What three steps change, so that a lost momentum or a lost average shows.
    started = torch.load(FOLDER / f'run_{optimizer}.pth', weights_only=False)
    for part in ('state_dict', 'ema_state_dict'):
        moved = distance(started[part], expected[part])
        assert distance(finished[part], expected[part]) < 0.02 * moved


def distance(one, other):
    """Return the largest difference between weights, clips among them, relative to their size."""
    return max(
        (one[key].reshape(-1) - other[key].reshape(-1)).norm() / other[key].norm()
        for key in other
        if other[key].is_floating_point() and other[key].norm() > 0
    )
