"""Statistics of layers against PyWavelets and plain arithmetic in NumPy."""

import math

import numpy as np
import pytest
import pywt
import torch
from torch import nn

from mmwcc.diagnostics.layer_stats import LayerStats
from mmwcc.layers import QuantConv2d, WaveletCompressedConv2d

ACT = dict(type='mmwcc.LearnedClipActQuantizer', bits=4, calibration=None, initial_clip=1.2)
WEIGHT = dict(type='mmwcc.LearnedClipWeightQuantizer', bits=3, calibration=None, initial_clip=0.2)


def maps(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    return x.cumsum(-1) / 4 + 0.3 * x


def coefficients(image, wavelet, levels):
    """Return all coefficients of a zero-padded image (C, H, W) at all positions, (N, C), in any
    order.
    """
    side = 2**levels
    pad = [(0, 0), (0, -image.shape[1] % side), (0, -image.shape[2] % side)]
    tree = pywt.wavedec2(
        np.pad(image.double().numpy(), pad),
        wavelet,
        mode='periodization',
        level=levels,
        axes=(1, 2),
    )
    bands = [tree[0], *(band for level in tree[1:] for band in level)]
    return np.concatenate([band.reshape(len(image), -1) for band in bands], axis=1).T


def kept(x, keep_ratio, wavelet, levels):
    """Return the coefficients at the positions of largest joint energy, and the energy of all."""
    rows, total = [], 0
    for image in x:
        values = coefficients(image, wavelet, levels)
        energy = np.square(values).sum(1)
        rows.append(values[np.argsort(energy)[::-1][: math.ceil(keep_ratio * len(values))]])
        total += energy.sum()
    return np.concatenate(rows), total


def rounded(values, clip, low, high):
    step = clip / high
    return np.clip(np.round(values / step), low, high) * step


def decibel(values, approximation):
    return 10 * math.log10(np.square(values).sum() / np.square(values - approximation).sum())


def layer_of(kind, x, train=True, **kwargs):
    layer = kind(x.shape[1], 5, **kwargs)
    nn.init.normal_(layer.weight, std=0.1)
    if train:
        layer(
            x
        )  # quantizers without calibration start from their initial clip in the first training step
    return layer


def stats_of(layer, *inputs):
    stats = LayerStats()
    for x in inputs:
        stats.update(layer, x)
    return stats.compute()


@pytest.mark.parametrize(
    ('wavelet', 'levels', 'keep_ratio'),
    [('haar', 3, 0.25), ('haar', 1, 0.07), ('db2', 2, 0.5), ('bior2.2', 1, 0.125)],
)
def test_against_pywavelets(wavelet, levels, keep_ratio):
    x = maps(2, 6, 13, 22)
    layer = layer_of(
        WaveletCompressedConv2d,
        x,
        keep_ratio=keep_ratio,
        levels=levels,
        wavelet=wavelet,
        act_quant=ACT,
        weight_quant=WEIGHT,
    )
    rows, total = kept(x, keep_ratio, wavelet, levels)
    weight = layer.weight.detach().double().numpy()
    assert stats_of(layer, x) == pytest.approx(
        dict(
            energy_kept=np.square(rows).sum() / total,
            act_clip_alpha=1.2,
            act_clipped=(np.abs(rows) > 1.2).mean(),
            act_sqnr=decibel(rows, rounded(rows, 1.2, -7, 7)),
            weight_clip_alpha=0.2,
            weight_clipped=(np.abs(weight) > 0.2).mean(),
            weight_sqnr=decibel(weight, rounded(weight, 0.2, -3, 3)),
        ),
        rel=1e-4,
    )


def test_stride_is_taken_before_the_transform():
    x = maps(1, 4, 15, 17)
    layer = layer_of(WaveletCompressedConv2d, x, stride=2, keep_ratio=0.3, levels=2)
    rows, total = kept(x[:, :, ::2, ::2], 0.3, 'haar', 2)
    assert stats_of(layer, x) == pytest.approx(
        dict(energy_kept=np.square(rows).sum() / total), rel=1e-5
    )


def test_coarse_selection():
    x = maps(1, 4, 16, 16)
    layer = layer_of(WaveletCompressedConv2d, x, keep_ratio=1 / 16, levels=2, selection='coarse')
    values = coefficients(x[0], 'haar', 2)
    expected = np.square(values[:16]).sum() / np.square(values).sum()
    assert stats_of(layer, x) == pytest.approx(dict(energy_kept=expected), rel=1e-5)


def test_all_energy():
    x = maps(2, 3, 9, 7)
    assert stats_of(layer_of(WaveletCompressedConv2d, x, keep_ratio=1.0), x) == dict(
        energy_kept=1.0
    )


def test_images_and_calls_are_weighted_by_their_energy():
    x, y = maps(1, 3, 8, 8), 5 * maps(1, 3, 8, 8, seed=1)
    layer = layer_of(WaveletCompressedConv2d, x, keep_ratio=0.25, act_quant=ACT)
    both = stats_of(layer, torch.cat([x, y]))
    assert stats_of(layer, x, y) == pytest.approx(both, rel=1e-6)
    assert stats_of(layer, x[0], y[0]) == pytest.approx(both, rel=1e-6)


@pytest.mark.parametrize(('signed', 'low', 'high'), [(True, -7, 7), (False, 0, 15)])
def test_quantized_convolution(signed, low, high):
    x = maps(2, 4, 9, 11)
    layer = layer_of(QuantConv2d, x, kernel_size=3, padding=1, act_quant=dict(ACT, signed=signed))
    values = x.double().numpy()
    outside = (values > 1.2) | (values < (-1.2 if signed else 0))
    assert stats_of(layer, x) == pytest.approx(
        dict(
            act_clip_alpha=1.2,
            act_clipped=outside.mean(),
            act_sqnr=decibel(values, rounded(values, 1.2, low, high)),
        ),
        rel=1e-4,
    )


def test_lsq_has_a_level_below_the_clip():
    x = torch.tensor([-1.2, -1.1, -1.0, 0.25, 1.0, 1.05]).reshape(1, 1, 1, 6)
    lsq = dict(
        type='mmwcc.LSQActQuantizer', bits=4, signed=True, calibration=None, initial_clip=1.0
    )
    stats = stats_of(layer_of(QuantConv2d, x, kernel_size=1, act_quant=lsq), x)
    assert stats['act_clipped'] == pytest.approx(2 / 6)  # the lowest level is -8/7


@pytest.mark.parametrize('normalize', ['standard', 'rescale'])
def test_normalized_weights(normalize):
    x = maps(1, 4, 8, 8)
    layer = layer_of(
        QuantConv2d,
        x,
        kernel_size=1,
        weight_quant=dict(WEIGHT, normalize=normalize, initial_clip=1.5),
    )
    weight = layer.weight.detach().double().numpy()
    weight = (weight - weight.mean()) / weight.std(ddof=1)
    assert stats_of(layer, x) == pytest.approx(
        dict(
            weight_clip_alpha=1.5,
            weight_clipped=(np.abs(weight) > 1.5).mean(),
            weight_sqnr=decibel(weight, rounded(weight, 1.5, -3, 3)),
        ),
        rel=1e-4,
    )


def test_clips_of_channels_are_reported_by_their_mean():
    x, clips = maps(1, 4, 8, 8), torch.tensor([0.1, 0.2, 0.4])
    layer = layer_of(QuantConv2d, x, kernel_size=1, weight_quant=dict(WEIGHT, per_channel=True))
    layer.weight_quant.clip_alpha.data[:] = clips.repeat(len(layer.weight))[: len(layer.weight)]
    weight, bounds = (
        layer.weight.detach().flatten(1),
        layer.weight_quant.clip_alpha.detach().unsqueeze(1),
    )
    levels = (weight / bounds * 3).round().clamp(-3, 3) * bounds / 3
    assert stats_of(layer, x) == pytest.approx(
        dict(
            weight_clip_alpha=bounds.mean().item(),
            weight_clipped=(weight.abs() > bounds).float().mean().item(),
            weight_sqnr=decibel(weight.double().numpy(), levels.double().numpy()),
        ),
        rel=1e-4,
    )


def test_half_precision():
    x = maps(1, 4, 8, 8)
    layer = layer_of(WaveletCompressedConv2d, x, keep_ratio=0.25, act_quant=ACT)
    with torch.autocast('cpu', torch.bfloat16):
        assert stats_of(layer, x.bfloat16()) == pytest.approx(stats_of(layer, x), rel=0.05)


def test_quantizers_without_a_clip_are_left_alone():
    x = maps(1, 4, 8, 8)
    layer = layer_of(
        QuantConv2d,
        x,
        train=False,
        kernel_size=1,
        act_quant=dict(ACT, calibration='mse'),
        weight_quant=WEIGHT,
    )
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    assert stats_of(layer, x) == {}
    assert all(torch.equal(before[key], value) for key, value in layer.state_dict().items())
    layer(x)
    layer.act_quant.bits = 32
    assert set(stats_of(layer, x)) == {'weight_clip_alpha', 'weight_clipped', 'weight_sqnr'}


def test_what_is_not_finite_is_left_out():
    x = torch.zeros(1, 4, 8, 8)
    layer = layer_of(WaveletCompressedConv2d, maps(1, 4, 8, 8), keep_ratio=0.25, act_quant=ACT)
    assert set(stats_of(layer, x)) == {'act_clip_alpha', 'act_clipped'}
    assert LayerStats().compute() == {}


def test_nothing_is_recorded_by_autograd():
    x = maps(1, 4, 8, 8).requires_grad_()
    layer = layer_of(
        WaveletCompressedConv2d, x, keep_ratio=0.25, act_quant=ACT, weight_quant=WEIGHT
    )
    stats = LayerStats()
    stats.update(layer, x)
    assert not any(tensor.requires_grad for tensor in stats._sums.values())


def test_refusal():
    with pytest.raises(
        TypeError, match='layer must be a compressed convolution or linear layer, got a Conv2d'
    ):
        LayerStats().update(nn.Conv2d(3, 4, 1), torch.zeros(1, 3, 4, 4))
