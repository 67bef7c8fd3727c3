"""Selection: exactly k positions, the lower one among equals, NaN before everything."""

import numpy as np
import pytest
import torch
from torch.library import opcheck

from mmwcc.kernels import select, slot_of
from mmwcc.testing import select as reference_select

NAN, INF = float('nan'), float('inf')


def kept(norms, k):
    return [row.nonzero().flatten().tolist() for row in select(torch.tensor(norms), k) >= 0]


@pytest.mark.parametrize(
    'norms, k, expected',
    [
        ([3.0, 1.0, 2.0], 2, [0, 2]),
        ([1.0, 1.0, 1.0, 1.0], 2, [0, 1]),
        ([0.0, 0.0, 0.0], 2, [0, 1]),
        ([1.0, 2.0, 2.0, 2.0, 3.0], 3, [1, 2, 4]),
        ([2.0, 5.0, 2.0, 5.0, 2.0], 4, [0, 1, 2, 3]),
        ([-0.0, 0.0, 0.0], 1, [0]),
        ([0.0, -0.0, 1e-45], 2, [0, 2]),
        ([1.0, INF, 2.0, INF], 2, [1, 3]),
        ([INF, INF, NAN], 1, [2]),
        ([5.0, NAN, 7.0, INF], 2, [1, 3]),
        ([NAN, 1.0, NAN, NAN], 2, [0, 2]),
        ([NAN, NAN, NAN], 2, [0, 1]),
        ([4.0, 3.0, 2.0], 3, [0, 1, 2]),
    ],
)
def test_select_by_hand(norms, k, expected):
    assert kept([norms], k) == [expected]


def test_negative_nan_ranks_first_too():
    norms = torch.tensor([[1.0, 2.0, 3.0]])
    norms[0, 1] = -torch.tensor(NAN)
    assert (select(norms, 1) >= 0).tolist() == [[False, True, False]]


def test_images_are_selected_independently():
    assert kept([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0]], 2) == [
        [2, 3],
        [0, 1],
        [0, 1],
    ]


def test_slot_numbers_the_kept_positions_in_ascending_order():
    slot = select(torch.tensor([[5.0, 0.0, 7.0, 6.0]]), 3)
    assert slot.dtype == torch.int32
    assert slot.tolist() == [[0, -1, 1, 2]]
    assert slot_of(torch.tensor([[False, True, True]])).tolist() == [[-1, 0, 1]]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('k', [1, 7, 99, 128])
@pytest.mark.parametrize('values', [2, 5, 10**6], ids=['heavy ties', 'ties', 'distinct'])
def test_select_equals_a_stable_sort(dtype, k, values):
    norms = torch.randint(values, (4, 128), generator=torch.Generator().manual_seed(values + k)).to(
        dtype
    )
    norms[2, ::9] = NAN
    norms[3] = 0
    assert np.array_equal((select(norms, k) >= 0).numpy(), reference_select(norms.numpy(), k))


def test_float64_norms_are_not_compared_in_float32():
    norms = torch.tensor([[1.0, 1.0 + 1e-12, 1.0]], dtype=torch.float64)
    assert select(norms, 1).tolist() == [[-1, 0, -1]]
    assert select(norms.float(), 1).tolist() == [[0, -1, -1]]


def test_empty_batch():
    assert select(torch.empty(0, 16), 4).shape == (0, 16)


@pytest.mark.parametrize('shape, k', [((2, 16), 4), ((1, 1), 1), ((3, 8), 8), ((0, 8), 2)])
def test_opcheck(shape, k):
    opcheck(torch.ops.mmwcc.select.default, (torch.rand(shape), k))
