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


WAYS = {
    'whole': dict(one_block=2**30),
    'one': dict(one_block=0, one_program=2**30),
    'one of many': dict(one_block=0, one_program=0, many_images=2),
    'many': dict(one_block=0, one_program=0, many_images=3),
}


def forced(way, **sizes):
    """Select in one way, in small blocks."""
    small = dict(one_warps=4, block=64, num_warps=4, many_block=64, many_warps=4)
    return LAUNCH.forced(dict(select=dict(float32={**small, **WAYS[way], **sizes})))


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('kind', NORMS)
def test_select(kind, way):
    for n in (3, 150) if 'many' in way else (1, 7, 64, 150):
        norms = NORMS[kind](n).to(DEVICE)
        for k in sorted({1, max(1, n // 3), n}):
            with forced(way):
                slot = kernels.select(norms, k)
            assert torch.equal(slot, REFERENCE['select']._select(norms, k))


def test_more_blocks_than_are_added_up_at_once():
    norms = (torch.rand(2, 64 * 35 + 5) * 200).round().to(DEVICE)
    with forced('many'):
        slot = kernels.select(norms, 900)
    assert torch.equal(slot, REFERENCE['select']._select(norms, 900))


@pytest.mark.parametrize('shape', [(2, 9216), (70, 500), (2, 40000)])
def test_select_with_the_shipped_configuration(shape):
    norms, k = (torch.rand(shape) * 1000).round().to(DEVICE), shape[1] // 4
    assert torch.equal(kernels.select(norms, k), REFERENCE['select']._select(norms, k))
