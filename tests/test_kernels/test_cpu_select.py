"""Selection in numba against its reference."""

import importlib

import pytest
import torch

pytest.importorskip(
    'numba', reason='the kernels are numba; without it the references run, which other tests cover'
)

select = importlib.import_module('mmwcc.kernels.select')
cpu = importlib.import_module('mmwcc.kernels.cpu.select')


@pytest.fixture(autouse=True)
def _poisoned_memory(poison):
    poison(cpu)


@pytest.mark.parametrize(
    'norms',
    [
        torch.rand(3, 1000),
        torch.zeros(2, 64),
        torch.randint(0, 3, (4, 777)).float(),
        torch.rand(2, 500) * 1e-40,
        torch.tensor([[float('nan'), 1, float('inf'), 2, -float('nan'), 0.0, -0.0]]),
        torch.rand(2, 13001),
        torch.randint(0, 3, (2, 13001)).float(),
        torch.zeros(1, 8193),
    ],
    ids=[
        'random',
        'zeros',
        'many ties',
        'subnormal',
        'not finite',
        'pieces',
        'ties in all pieces',
        'zeros in pieces',
    ],
)
def test_selection_equals_the_reference(norms):
    positions = norms.shape[1]
    for k in {1, 2, positions // 2, positions - 1, positions}:
        assert torch.equal(cpu.select(norms, k), select._select(norms, k))
