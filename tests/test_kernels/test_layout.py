"""Position order: by hand on a 4 x 4 map, and against an independent loop."""

import pytest
import torch

from mmwcc.kernels import coarse_rank, fold, is_channels_last, padded_size, unfold
from mmwcc.testing import mallat_index

SIZES = [(1, 2, 2), (1, 4, 6), (2, 4, 4), (2, 8, 12), (3, 8, 8), (3, 16, 24), (4, 16, 32)]


@pytest.mark.parametrize(
    'size, levels, expected', [(1, 1, 2), (8, 3, 8), (9, 3, 16), (63, 4, 64), (65, 1, 66)]
)
def test_padded_size_is_the_next_multiple(size, levels, expected):
    assert padded_size(size, levels) == expected


def test_order_of_a_4x4_map_at_two_levels_by_hand():
    # Bands hold their names as numbers: cA 0; level 2 cH cV cD 1 2 3; level 1 in cell (r, c)
    # 10 * (1 + 2 r + c) + band.
    approximation = torch.zeros(1, 1, 1, 1)
    coarse = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 1, 1, 3, 1)
    fine = torch.tensor(
        [[[11.0, 12.0, 13.0], [21.0, 22.0, 23.0]], [[31.0, 32.0, 33.0], [41.0, 42.0, 43.0]]]
    ).reshape(1, 2, 2, 3, 1)
    expected = [0, 1, 2, 3, 11, 12, 13, 21, 22, 23, 31, 32, 33, 41, 42, 43]
    assert fold(approximation, [coarse, fine]).flatten().tolist() == expected


def test_order_of_two_patches_is_patch_major():
    approximation = torch.tensor([0.0, 100.0]).reshape(1, 1, 2, 1)
    details = torch.tensor([[1.0, 2.0, 3.0], [101.0, 102.0, 103.0]]).reshape(1, 1, 2, 3, 1)
    assert fold(approximation, [details]).flatten().tolist() == [0, 1, 2, 3, 100, 101, 102, 103]


@pytest.mark.parametrize('levels, height, width', SIZES)
def test_coarse_rank_is_the_index_in_the_list_of_bands(levels, height, width):
    # Flattening cA, cH_L, cV_L, cD_L, ..., cD_1 one after the other goes from coarse to fine.
    assert (
        coarse_rank(height, width, levels).tolist() == mallat_index(height, width, levels).tolist()
    )


@pytest.mark.parametrize('levels, height, width', SIZES)
def test_unfold_undoes_fold(levels, height, width):
    coefficients = torch.randn(2, height * width, 3)
    approximation, details = unfold(coefficients, height, width, levels)
    assert [tuple(band.shape) for band in details] == [
        (2, height >> level, width >> level, 3, 3) for level in range(levels, 0, -1)
    ]
    assert torch.equal(fold(approximation, details), coefficients)


def test_is_channels_last_reads_strides():
    x = torch.randn(2, 4, 6, 8)
    channels_last = x.contiguous(memory_format=torch.channels_last)
    assert not is_channels_last(x)
    assert is_channels_last(channels_last)
    assert is_channels_last(channels_last[:, :2])
    assert not is_channels_last(x[:, :, ::2, ::2])
    assert not is_channels_last(torch.randn(2, 4, 1, 1))
