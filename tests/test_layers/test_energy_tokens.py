"""Linear layers whose tokens have scales and bits by their energy."""

import pytest
import torch
from torch import nn

from mmwcc.compression import compress_model
from mmwcc.cost import count_cost
from mmwcc.diagnostics import LayerStats
from mmwcc.functional import bits_of_positions
from mmwcc.layers import QuantLinear, TokenGrid, WaveletCompressedConv2d, WaveletCompressedLinear

ENERGY = dict(type='mmwcc.EnergyActQuantizer')
BUDGET = dict(ENERGY, bits=2, widths=(0, 3, 4, 5, 6, 8))


def smooth_map(*size):
    noise = torch.randn(*size, generator=torch.Generator().manual_seed(0))
    return noise.cumsum(1).cumsum(2) / 10


@pytest.mark.parametrize('wavelet', ['haar', 'bior2.2'])
def test_a_map_is_treated_as_a_convolution_treats_it(wavelet):
    conv = WaveletCompressedConv2d(6, 5, keep_ratio=1.0, wavelet=wavelet, act_quant=BUDGET)
    layer = WaveletCompressedLinear(6, 5, keep_ratio=1.0, wavelet=wavelet, act_quant=BUDGET)
    layer.load_state_dict({**conv.state_dict(), 'weight': conv.weight[:, :, 0, 0]})
    x = smooth_map(2, 24, 32, 6)
    expected = conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(layer(x), expected)
    assert layer.packed_ratio == conv.packed_ratio == pytest.approx(2 / 3)
    assert not torch.allclose(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


def test_all_tokens_of_an_image_share_its_budget():
    """A class token without energy leaves its bits to the map; one with energy takes some."""
    layer = WaveletCompressedLinear(6, 5, keep_ratio=1.0, act_quant=BUDGET)
    layer.token_grid = TokenGrid([(16, 16)], extra=1)
    seen = []
    arguments = layer.act_quant.arguments

    def watch(rows, positions=None):
        seen.append((rows, positions))
        return arguments(rows, positions)

    layer.act_quant.arguments = watch
    pixels = smooth_map(1, 16, 16, 6).flatten(1, 2)
    for factor in (0.0, 100.0):
        layer(torch.cat([factor * torch.ones(1, 1, 6), pixels], 1))
        rows, positions = seen[-1]
        bits = bits_of_positions(rows, arguments(rows, positions)[2])
        assert positions == 257
        assert 0.9 * 2 * 257 < bits.sum() <= 2 * 257
        assert (bits[0, 0] > 0) == (factor > 0)


@pytest.mark.parametrize('kind', [QuantLinear, WaveletCompressedLinear])
def test_an_image_does_not_depend_on_its_batch(kind):
    settings = dict(keep_ratio=1.0) if kind is WaveletCompressedLinear else {}
    layer = kind(6, 5, act_quant=BUDGET, **settings)
    x = smooth_map(3, 16, 16, 6)
    x[1] *= 7
    layer(x)
    layer.eval()
    torch.testing.assert_close(layer(x), torch.cat([layer(image[None]) for image in x]))


def test_tokens_with_a_scale_each_lose_less_than_with_one_for_all():
    x = smooth_map(1, 16, 16, 6)
    x[:, :8] *= 50
    errors = []
    for act_quant in (dict(ENERGY, bits=4), dict(type='mmwcc.LearnedClipActQuantizer', bits=4)):
        torch.manual_seed(0)
        layer = QuantLinear(6, 5, bias=False, act_quant=act_quant)
        layer(x)
        exact = nn.functional.linear(x, layer.weight)[:, 8:]
        errors.append(((layer.eval()(x)[:, 8:] - exact).norm() / exact.norm()).item())
    assert errors[0] < 0.3 * errors[1]


def test_gradients_reach_tokens_weight_and_clips():
    layer = WaveletCompressedLinear(6, 5, keep_ratio=1.0, act_quant=BUDGET)
    layer.token_grid = TokenGrid([(16, 16)], extra=1)
    x = torch.randn(2, 257, 6, requires_grad=True)
    layer(x).square().sum().backward()
    for grad in (x.grad, layer.weight.grad, layer.act_quant.clip_alpha.grad):
        assert grad.isfinite().all() and grad.any()


def test_a_budget_must_fit_the_keep_ratio():
    with pytest.raises(ValueError, match=r'WaveletCompressedLinear: .*got bits=2 for keep_ratio='):
        WaveletCompressedLinear(6, 5, keep_ratio=0.1, act_quant=BUDGET)


class Mlp(nn.Module):
    """What ConvNeXt does on maps (B, H, W, C), and one layer on pooled tokens."""

    def __init__(self):
        super().__init__()
        self.stem, self.up, self.pooled = nn.Conv2d(3, 8, 1), nn.Linear(8, 16), nn.Linear(16, 16)
        self.last = nn.Linear(16, 4)

    def forward(self, x):
        x = self.up(self.stem(x).permute(0, 2, 3, 1)).relu()
        return self.last(self.pooled(x.mean((1, 2))))


def compressed():
    torch.manual_seed(0)
    model = Mlp()
    compression = dict(
        pointwise=dict(type='mmwcc.QuantConv2d'),
        linear=dict(type='mmwcc.WaveletCompressedLinear', keep_ratio=1.0, act_quant=BUDGET),
        weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
        act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
    )
    compress_model(model, compression, verbose=False)
    model(torch.rand(2, 3, 16, 24))
    return model.eval()


def test_layers_without_maps_have_the_general_quantizer():
    model = compressed()
    assert isinstance(model.up, WaveletCompressedLinear) and model.up.act_quant.bits == 2
    assert type(model.pooled) is QuantLinear and model.pooled.act_quant.bits == 8


def test_costs_and_statistics_give_the_bits():
    pytest.importorskip('mmengine', reason='it counts operators')
    model = compressed()
    cost = {layer.name: layer for layer in count_cost(model, (16, 24)).layers}['up']
    assert cost.bops == 16 * 24 * 8 * 16 * 8 * 2
    kept = 16 * 24 * 2 // 3
    assert cost.macs == kept * 8 * 16
    # Values, a scale of 32 bits for each kept token, and three bits that tell one of six widths.
    assert 8 * cost.act_bytes == 16 * 24 * (8 * 2 + 3) + 32 * kept
    stats = LayerStats()
    stats.update(model.up, smooth_map(2, 16, 24, 8))
    values = stats.compute()
    assert 1.9 < values['act_bits'] <= 2
    histogram = {width: values[f'act_positions_w{width}'] for width in (3, 4, 5, 6, 8)}
    assert sum(histogram.values()) == pytest.approx(values['act_positions'])
    assert sum(width * share for width, share in histogram.items()) == pytest.approx(
        values['act_bits']
    )


def test_factors_of_tokens_that_are_only_quantized_are_counted():
    pytest.importorskip('mmengine', reason='it counts operators')
    model = nn.Sequential(QuantLinear(8, 16, act_quant=dict(ENERGY, bits=4)))
    (cost,) = count_cost(model, inputs=torch.rand(1, 50, 8)).layers
    assert 8 * cost.act_bytes == 50 * (8 * 4 + 32)
