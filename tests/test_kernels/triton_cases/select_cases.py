"""Exact selection, by one program for an image and by many."""

import pytest
import torch

from mmwcc import kernels

from .common import DEVICE, LAUNCH, REFERENCE

NORMS = {
    'random': lambda n: torch.rand(2, n),
    'ties': lambda n: torch.randint(0, 3, (2, n)).float(),
    'all zero': lambda n: torch.zeros(2, n),
    'all equal': lambda n: torch.full((2, n), 0.3),
    'one last bit apart': lambda n: torch.randint(10**9, 10**9 + 2, (2, n), dtype=torch.int32).view(
        torch.float32
    ),
    'NaN, infinity and negative zero': lambda n: torch.tensor(
        [[float('nan'), -0.0, float('inf'), 0.0, 1e-45, 3e38]]
    ).repeat(2, n // 6 + 1)[:, :n],
    'a NaN of another payload': lambda n: torch.full((2, n), 2139095041, dtype=torch.int32).view(
        torch.float32
    ),
}


@pytest.mark.parametrize('programs', ['one', 'many'])
@pytest.mark.parametrize('kind', NORMS)
def test_select(kind, programs):
    sizes = dict(
        one_program=2**30 if programs == 'one' else 0,
        block=64,
        many_block=64,
        num_warps=4,
        many_warps=4,
    )
    for n in (1, 7, 64, 150) if programs == 'one' else (3, 150):
        norms = NORMS[kind](n).to(DEVICE)
        for k in sorted({1, max(1, n // 3), n}):
            with LAUNCH.forced(dict(select=dict(float32=sizes))):
                slot = kernels.select(norms, k)
            assert torch.equal(slot, REFERENCE['select']._select(norms, k))


@pytest.mark.parametrize('n', [9216, 40000])  # one program an image, and many
def test_select_with_the_shipped_configuration(n):
    norms = (torch.rand(2, n) * 1000).round().to(DEVICE)
    assert torch.equal(kernels.select(norms, n // 4), REFERENCE['select']._select(norms, n // 4))
