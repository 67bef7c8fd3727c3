"""Joint shrinkage: how many positions are kept, which ones, and the way there and back for every
wavelet.
"""

import pytest
import torch

from mmwcc.functional import SELECTIONS, kept_positions, pack, unpack
from mmwcc.functional import WAVELETS as OUR_WAVELETS
from mmwcc.testing import (
    WAVELETS,
    Transform,
    check_selection,
    kept_count,
    mallat_index,
    relative_error,
    to_numpy,
)


def test_the_wavelets_of_the_paper():
    assert OUR_WAVELETS == WAVELETS


@pytest.mark.parametrize(
    'keep_ratio, positions, k',
    [
        (1, 64, 64),
        (1.0, 7, 7),
        (0.5, 63, 32),
        (0.1, 10, 1),
        (0.1, 64, 7),
        (0.3, 10, 3),
        (0.7, 10, 7),
        (1 / 3, 9, 3),
        (0.125, 4, 1),
        (1e-9, 10**6, 1),
        (5e-324, 64, 1),
        (0.999999, 64, 64),
    ],
)
def test_kept_positions(keep_ratio, positions, k):
    assert kept_positions(positions, keep_ratio) == k


@pytest.mark.parametrize('keep_ratio', [0.01 * percent for percent in range(1, 101)])
def test_kept_positions_is_exact_for_every_percentage(keep_ratio):
    for positions in (64, 100, 4096, 99 * 64):
        assert kept_positions(positions, keep_ratio) == kept_count(positions, keep_ratio)
        assert kept_positions(positions, keep_ratio) == -(
            -positions * round(100 * keep_ratio) // 100
        )


@pytest.mark.parametrize('wavelet', WAVELETS)
@pytest.mark.parametrize('levels', [1, 2, 3, 4])
@pytest.mark.parametrize('selection', SELECTIONS)
def test_pack_keeps_the_right_coefficients(wavelet, levels, selection):
    x = torch.randn(2, 3, 13, 18, dtype=torch.float64)
    rows, slot = pack(x, keep_ratio=0.2, levels=levels, wavelet=wavelet, selection=selection)
    transform = Transform(13, 18, levels, wavelet)
    coefficients = transform.analysis(to_numpy(x)).transpose(0, 2, 1)
    k = kept_count(transform.positions, 0.2)
    keep = to_numpy(slot) >= 0
    if selection == 'energy':
        check_selection(keep, (coefficients**2).sum(2), k, 1e-12)
    else:
        assert (keep == (mallat_index(*transform.size, levels) < k)).all()
    assert slot[slot >= 0].reshape(2, k).tolist() == 2 * [list(range(k))]
    assert relative_error(rows, coefficients[keep].reshape(2, k, 3)) < 1e-12


def test_energy_selection_prefers_the_lower_position_among_equals():
    # Every coefficient but cA of a constant map is 0: cA first, then the lowest of the equal rest.
    _, slot = pack(torch.ones(1, 2, 8, 8), keep_ratio=4 / 64, levels=3)
    assert slot[0].nonzero().flatten().tolist() == [1, 2, 3] + list(
        range(4, 64)
    )  # slot 0 is the zero
    assert (slot[0, 4:] == -1).all()
    _, slot = pack(torch.zeros(1, 2, 8, 8), keep_ratio=0.25, levels=3)
    assert (slot[0] >= 0).nonzero().flatten().tolist() == list(range(16))


def test_selection_is_joint_over_channels():
    x = torch.zeros(1, 2, 4, 4)
    x[0, 0, 0, 0], x[0, 1, 2, 2] = 4, 3  # the same cell of two patches of one level
    x[0, 0, 2, 2] = 3
    _, slot = pack(x, keep_ratio=4 / 16, levels=1)
    assert (slot[0] >= 0).nonzero().flatten().tolist() == [12, 13, 14, 15]  # 3**2 + 3**2 > 4**2


def test_selection_is_per_image():
    x = torch.zeros(2, 1, 4, 4)
    x[0, 0, 0, 0], x[1, 0, 3, 3] = 1, 1e-3
    _, slot = pack(x, keep_ratio=4 / 16, levels=1)
    assert [(row >= 0).nonzero().flatten().tolist() for row in slot] == [
        [0, 1, 2, 3],
        [12, 13, 14, 15],
    ]


@pytest.mark.parametrize('wavelet', WAVELETS)
def test_unpack_inverts_pack_at_keep_ratio_1(wavelet):
    x = torch.randn(2, 3, 11, 9, dtype=torch.float64)
    rows, slot = pack(x, keep_ratio=1, levels=2, wavelet=wavelet)
    y = unpack(rows, slot, size=(11, 9), levels=2, wavelet=wavelet)
    torch.testing.assert_close(y, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('wavelet', WAVELETS)
@pytest.mark.parametrize('channels_last', [False, True])
def test_unpack_layout_bias_and_dtype(wavelet, channels_last):
    slot = pack(torch.randn(2, 3, 6, 10), keep_ratio=0.5, levels=2, wavelet=wavelet)[1]
    rows = torch.zeros(2, int((slot[0] >= 0).sum()), 3, dtype=torch.bfloat16)
    y = unpack(
        rows,
        slot,
        torch.tensor([1.0, 2.0, 3.0]),
        size=(6, 10),
        levels=2,
        wavelet=wavelet,
        channels_last=channels_last,
    )
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    assert y.dtype == torch.bfloat16
    assert y.stride() == torch.empty(2, 3, 6, 10, memory_format=memory_format).stride()
    assert torch.equal(y[1, :, 3, 4].float(), torch.tensor([1.0, 2.0, 3.0]))


@pytest.mark.parametrize('wavelet', ['haar', 'db2', 'bior2.2'])
@pytest.mark.parametrize('selection', SELECTIONS)
def test_empty_batch(wavelet, selection):
    x = torch.empty(0, 3, 8, 8, requires_grad=True)
    rows, slot = pack(x, keep_ratio=0.25, levels=2, wavelet=wavelet, selection=selection)
    y = unpack(rows, slot, size=(8, 8), levels=2, wavelet=wavelet)
    y.sum().backward()
    assert rows.shape == (0, 16, 3)
    assert y.shape == x.grad.shape == (0, 3, 8, 8)
