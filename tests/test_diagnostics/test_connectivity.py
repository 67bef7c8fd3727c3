"""Which channels depend on which: convolutions, and the full connectivity of DFWT and WConv."""

import pytest
import torch
from torch import nn

from mmwcc.diagnostics import adjacency, path_counts
from mmwcc.layers import DepthwiseFastWaveletTransform, WaveletConv2d

DEPTHS = [
    (channels, kappa)
    for channels in (8, 16, 32, 24)
    for kappa in range(1, 6)
    if channels % 2**kappa == 0
]


@pytest.mark.parametrize('channels, kappa', DEPTHS)
def test_transform_and_wavelet_convolution_lead_from_every_channel_to_every_channel_once(
    channels, kappa
):
    transform = adjacency(DepthwiseFastWaveletTransform(kappa), channels)
    convolution = adjacency(WaveletConv2d(channels, channels, 3, padding=1, kappa=kappa), channels)
    assert path_counts(transform, convolution).eq(1).all()
    assert path_counts(transform, convolution).shape == (channels, channels)
    assert adjacency(
        WaveletConv2d(channels, channels, 3, padding=1, kappa=kappa, dfwt=kappa), channels
    ).all()


@pytest.mark.parametrize('kappa', [1, 2, 3, 4, 5])
def test_non_zeros_of_a_square_wavelet_convolution(kappa):
    channels = 2**kappa
    matrix = adjacency(WaveletConv2d(channels, channels, 1, kappa=kappa), channels)
    assert matrix.sum() == channels + channels * (kappa - 1) // 4
    assert not matrix.all() or kappa == 0


def test_golden_matrices():
    assert adjacency(WaveletConv2d(4, 4, 1, kappa=2), 4).tolist() == [
        [1, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
        [0, 0, 0, 1],
    ]
    assert adjacency(DepthwiseFastWaveletTransform(2), 4).tolist() == [
        [1, 0, 1, 0],
        [0, 1, 0, 1],
        [1, 1, 1, 1],
        [1, 1, 1, 1],
    ]


def test_without_the_transform_channels_stay_apart():
    wavelet = WaveletConv2d(16, 16, 1, kappa=3)
    assert not adjacency(nn.Sequential(wavelet, nn.BatchNorm2d(16), nn.ReLU6()), 16).all()
    joined = nn.Sequential(
        wavelet, nn.BatchNorm2d(16), nn.ReLU6(), WaveletConv2d(16, 16, 1, kappa=3, dfwt=3)
    )
    assert adjacency(joined, 16).all()


def test_ordinary_layers():
    assert adjacency(nn.Conv2d(6, 4, 3, groups=2), 6).tolist() == 2 * [[1, 1, 1, 0, 0, 0]] + 2 * [
        [0, 0, 0, 1, 1, 1]
    ]
    assert torch.equal(adjacency(nn.BatchNorm2d(5), 5), torch.eye(5).long())


def test_zero_weights_do_not_matter_and_the_module_is_left_alone():
    conv = nn.Conv2d(3, 2, 1)
    nn.init.zeros_(conv.weight)
    assert adjacency(conv, 3).all()
    assert not conv.weight.any() and conv.weight.dtype == torch.float32


def test_path_counts():
    two = torch.ones(2, 2).long()
    one = torch.tensor([[1, 0], [1, 1], [0, 1]])
    assert path_counts(two, one).tolist() == [[1, 1], [2, 2], [1, 1]]
    with pytest.raises(
        ValueError, match='as many inputs as the layer before has outputs, got 2 after 3'
    ):
        path_counts(one, two)
    with pytest.raises(ValueError, match='at least one adjacency must be given'):
        path_counts()
