"""Wavelet transforms as functions: PyWavelets band by band, reconstruction, derivatives."""

import warnings

import numpy as np
import pytest
import pywt
import torch

from mmwcc.functional import wavedec2, waverec2
from mmwcc.functional.wavelets import filter_bank
from mmwcc.testing import WAVELETS


def pywt_bands(x, wavelet, levels):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # deep levels of small maps
        return pywt.wavedec2(
            x.double().numpy(), wavelet, mode='periodization', level=levels, axes=(-2, -1)
        )


@pytest.mark.parametrize('wavelet', [*WAVELETS, 'bior3.1', 'db10'])
@pytest.mark.parametrize('levels', [1, 2, 3, 4])
@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-11), (torch.float32, 1e-4)])
def test_bands_equal_pywt(wavelet, levels, dtype, tolerance):
    x = torch.randn(2, 2, 16, 48).to(dtype)
    ours, expected = wavedec2(x, wavelet, levels), pywt_bands(x, wavelet, levels)
    assert len(ours) == len(expected)
    np.testing.assert_allclose(ours[0].numpy(), expected[0], atol=tolerance)
    for our_details, details in zip(ours[1:], expected[1:], strict=True):
        for our_band, band in zip(our_details, details, strict=True):  # cH, cV, cD
            np.testing.assert_allclose(our_band.numpy(), band, atol=tolerance)


@pytest.mark.parametrize('wavelet', WAVELETS)
@pytest.mark.parametrize('height, width, levels', [(2, 2, 1), (2, 34, 1), (4, 20, 2), (16, 16, 4)])
def test_perfect_reconstruction(wavelet, height, width, levels):
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    torch.testing.assert_close(
        waverec2(wavedec2(x, wavelet, levels), wavelet), x, rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize('wavelet', WAVELETS)
def test_filters_and_their_signs_are_pywts(wavelet):
    for ours, theirs in zip(filter_bank(wavelet), pywt.Wavelet(wavelet).filter_bank, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-15)


@pytest.mark.parametrize('wavelet', WAVELETS)
def test_energy_is_preserved_by_orthogonal_wavelets_only(wavelet):
    x = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    bands = wavedec2(x, wavelet, 2)
    energy = bands[0].square().sum() + sum(
        band.square().sum() for details in bands[1:] for band in details
    )
    assert torch.isclose(energy, x.square().sum(), rtol=1e-9) == (not wavelet.startswith('bior'))


@pytest.mark.parametrize('wavelet', ['haar', 'db3', 'bior1.3'])
def test_gradcheck(wavelet):
    def roundabout(x):
        approximation, *details = wavedec2(x, wavelet, 2)
        return waverec2([approximation * 2, *details], wavelet)

    assert torch.autograd.gradcheck(
        roundabout, torch.randn(1, 1, 4, 8, dtype=torch.float64, requires_grad=True)
    )


def test_sizes_must_be_multiples():
    with pytest.raises(ValueError, match='multiples of 2\\*\\*levels = 8, got 8x12'):
        wavedec2(torch.zeros(1, 1, 8, 12), levels=3)
