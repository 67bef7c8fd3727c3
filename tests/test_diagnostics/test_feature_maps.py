"""What compression costs feature maps: against PyWavelets, the layers, the quantizers and hand-made
values.
"""

import math

import pytest
import pywt
import torch
from torch import nn
from torch.nn import functional as F

from mmwcc.diagnostics.feature_maps import (
    MapError,
    compress_map,
    eligible_layers,
    equal_cost_bits,
    map_error,
    mosaic,
    observe_inputs,
    quantize_map,
)
from mmwcc.functional import pack
from mmwcc.layers import WaveletCompressedConv2d
from mmwcc.quantizers import LearnedClipActQuantizer


@pytest.mark.parametrize('size', [(16, 24), (13, 18), (1, 1)])
@pytest.mark.parametrize('levels', [1, 2, 3])
def test_mosaic_is_the_layout_of_pywavelets(size, levels):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    step = 2**levels
    padded = F.pad(x, (0, -size[1] % step, 0, -size[0] % step)).numpy()
    expected, _ = pywt.coeffs_to_array(
        pywt.wavedec2(padded, 'haar', 'periodization', levels), axes=(-2, -1)
    )
    rows, _ = pack(x, keep_ratio=1.0, levels=levels)
    torch.testing.assert_close(mosaic(rows, size, levels), torch.from_numpy(expected))


@pytest.mark.parametrize('wavelet', ['haar', 'db2'])
def test_the_error_is_the_energy_that_was_dropped(wavelet):
    """Parseval, for orthogonal wavelets on maps that need no padding."""
    x = torch.randn(2, 4, 16, 32)
    rows, _ = pack(x, keep_ratio=0.3, wavelet=wavelet)
    compressed = compress_map(x, 0.3, bits=32, wavelet=wavelet)
    dropped = x.square().sum().item() - rows.square().sum().item()
    assert map_error(x, compressed.values).squared == pytest.approx(dropped, rel=1e-4)
    assert compressed.kept.shape == (2, 16, 32) and compressed.kept.dtype == torch.bool
    assert compressed.kept.flatten(1).sum(1).tolist() == [math.ceil(0.3 * 512)] * 2


def test_the_kept_positions_are_shown_where_they_are():
    constant = compress_map(torch.ones(1, 2, 16, 24), 6 / 384, bits=32)
    assert map_error(torch.ones(1, 2, 16, 24), constant.values).squared < 1e-9
    expected = torch.zeros(1, 16, 24, dtype=torch.bool)
    expected[:, :2, :3] = True  # cA of the third level
    assert torch.equal(constant.kept, expected)


@pytest.mark.parametrize(
    'settings',
    [
        dict(keep_ratio=0.25),
        dict(keep_ratio=0.4, levels=2, selection='coarse'),
        dict(keep_ratio=0.5, wavelet='bior2.2', levels=1),
    ],
)
def test_compressing_is_what_a_layer_does(settings):
    x = torch.randn(2, 3, 13, 18)
    layer = WaveletCompressedConv2d(
        3, 3, bias=False, act_quant=LearnedClipActQuantizer(bits=8), **settings
    )  # in training mode, it learns its clip from this map
    with torch.no_grad():
        layer.weight.copy_(torch.eye(3)[..., None, None])
        expected = layer(x)
    torch.testing.assert_close(compress_map(x, bits=8, **settings).values, expected)


@pytest.mark.parametrize('bits', [2, 5, 8, 16, 32])
@pytest.mark.parametrize('prepare', [torch.relu, torch.nn.Identity()], ids=['unsigned', 'signed'])
def test_quantizing_is_what_a_quantizer_does(bits, prepare):
    x = prepare(torch.randn(1, 3, 9, 9))
    torch.testing.assert_close(
        quantize_map(x, bits), LearnedClipActQuantizer(bits=bits)(x).detach()
    )


def test_one_bit_is_the_better_of_two_levels():
    assert quantize_map(torch.tensor([-1.0, 3.0, 2.0]), 1).tolist() == [-2.0, 2.0, 2.0]
    values = quantize_map(torch.tensor([0.0, 0.1, 1.0, 1.0]), 1)
    assert values[:2].tolist() == [0, 0] and values[2:] == pytest.approx([1.0, 1.0], abs=0.1)
    assert quantize_map(torch.zeros(4), 1).tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ('function', 'arguments', 'message'),
    [
        (
            quantize_map,
            (0,),
            'quantize_map: bits must be in 1 ... 16, or 32 for no quantization, got 0',
        ),
        (quantize_map, (24,), 'got 24'),
        (
            compress_map,
            (0.5, 1),
            'compress_map: bits must be in 2 ... 16, or 32 for no quantization, got 1',
        ),
    ],
)
def test_bits_that_no_grid_has_are_refused(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(torch.ones(1, 1, 8, 8), *arguments)


@pytest.mark.parametrize(
    ('keep_ratio', 'bits', 'expected'),
    [
        (0.25, 8, 2),
        (0.3, 8, 3),
        (0.125, 8, 1),
        (0.01, 8, 1),
        (1.0, 8, 8),
        (0.1, 10, 1),
        (0.5, 32, 16),
    ],
)
def test_equal_cost(keep_ratio, bits, expected):
    assert equal_cost_bits(keep_ratio, bits) == expected


def test_errors_add_up():
    x, y = torch.tensor([3.0, 4.0]), torch.tensor([3.0, 3.0])
    error = map_error(x, y) + map_error(x, x)
    assert (error.mse, error.relative) == (0.25, 0.02)
    assert math.isnan(MapError().mse) and math.isnan(map_error(torch.zeros(2), y).relative)


def test_inputs_are_observed_as_they_are_multiplied():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Conv2d(4, 4, 1, stride=(2, 3)),
        nn.Conv2d(4, 4, 1, groups=2),
        WaveletCompressedConv2d(4, 2, keep_ratio=0.5),
    )
    layers = eligible_layers(model)
    assert list(layers) == ['1', '3']
    seen, x = {}, torch.randn(2, 3, 9, 10)
    with observe_inputs(layers, seen.__setitem__):
        model(x)
    torch.testing.assert_close(seen['1'], model[0](x).detach()[:, :, ::2, ::3])
    assert not seen['1'].requires_grad and seen['3'].shape == (2, 4, 5, 4)
    seen.clear()
    model(x)
    assert not seen


def test_observing_ends_with_an_error():
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    with (
        pytest.raises(ZeroDivisionError),
        observe_inputs(eligible_layers(model), lambda name, x: 1 / 0),
    ):
        model(torch.ones(1, 3, 4, 4))
    model(torch.ones(1, 3, 4, 4))
