"""The formulas of MACs and bit operations."""

import pytest

from mmwcc.cost.formulas import conv_macs, transform_bops, transform_operations


def test_conv_macs():
    assert conv_macs(3, 8, 3, (5, 7)) == 3 * 8 * 9 * 35
    assert conv_macs(12, 8, (1, 3), (5, 7), groups=4, stride=2) == 12 * 8 // 4 * 3 * 35
    assert conv_macs(6, 4, 3, (10,)) == 6 * 4 * 3 * 10
    assert conv_macs(5, 4, 1, ()) == 20


def test_conv_macs_of_the_paper_divide_by_the_stride():
    assert conv_macs(4, 8, 3, (6, 9), stride=(2, 3), convention='paper') == 4 * 8 * 9 * 54 / 6
    assert isinstance(conv_macs(4, 8, 3, (6, 9), stride=(2, 3), convention='paper'), int)
    assert conv_macs(1, 1, 1, (5, 5), stride=2, convention='paper') == 6.25
    assert conv_macs(1, 1, 1, (3, 3), stride=2) == 9


@pytest.mark.parametrize(('levels', 'each'), [(1, 4), (2, 4 + 1), (3, 4 + 1 + 0.25)])
def test_haar(levels, each):
    assert transform_operations(3, 64, levels=levels) == 3 * 64 * each
    assert transform_bops(3, (8, 8), 5, levels=levels) == 3 * 64 * each * 5


@pytest.mark.parametrize(('wavelet', 'taps'), [('db2', 4), ('bior1.3', 6), ('db3', 6), ('sym4', 8)])
def test_longer_wavelets(wavelet, taps):
    pytest.importorskip('pywt')
    haar = transform_operations(3, 64)
    assert (
        transform_operations(3, 64, wavelet=wavelet, weight_bits=8) == (taps // 2) ** 2 * 8 * haar
    )
    assert (
        transform_bops(3, (8, 8), 4, wavelet=wavelet, weight_bits=8)
        == (taps // 2) ** 2 * 8 * 4 * haar
    )


def test_unknown_convention():
    with pytest.raises(
        ValueError, match="conv_macs: convention must be one of exact, paper, got 'exakt'"
    ):
        conv_macs(1, 1, 1, (1, 1), convention='exakt')
