"""Decompositions that are not learned."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmwcc.models import ResizeDecomposition, WaveletDecomposition

pywt = pytest.importorskip('pywt')


@pytest.mark.parametrize('wavelet', ['bior4.4', 'haar', 'db2'])
def test_wavelet_parts_are_those_of_pywavelets(wavelet):
    x = torch.rand(2, 3, 12, 16, dtype=torch.float64)
    low, high = WaveletDecomposition(wavelet)(x)
    approximation, details = pywt.dwt2(x.numpy(), wavelet, mode='periodization')
    np.testing.assert_allclose(low, approximation, atol=1e-12)
    np.testing.assert_allclose(high, np.concatenate(details, axis=1), atol=1e-12)


def test_cdf_9_7_is_the_default():
    assert WaveletDecomposition().wavelet == 'bior4.4'


def test_resizing_averages_and_keeps_the_energy_of_the_rest():
    x = torch.rand(2, 3, 6, 8)
    low, high = ResizeDecomposition()(x)
    torch.testing.assert_close(low, F.avg_pool2d(x, 2))
    assert high.shape == (2, 9, 3, 4)
    torch.testing.assert_close(4 * (low.square().sum() + high.square().sum()), x.square().sum())


@pytest.mark.parametrize('decomposition', [ResizeDecomposition(), WaveletDecomposition('haar')])
def test_odd_sizes_and_other_inputs(decomposition):
    low, high = decomposition(torch.ones(1, 3, 5, 1))
    assert low.shape == (1, 3, 3, 1) and high.shape == (1, 9, 3, 1)
    assert low.unique().numel() == 1 and high.abs().max() < 1e-6
    with pytest.raises(ValueError, match=r'the input must be images of shape \(B, 3, H, W\)'):
        decomposition(torch.ones(1, 1, 4, 4))
