"""count_cost on small models: what it finds, what it leaves as it was, what it refuses."""

import copy

import pytest
import torch
from torch import nn

pytest.importorskip('mmengine', reason='costs are counted by its complexity analysis')

from mmwcc.cost import count_cost  # noqa: E402
from mmwcc.cost.formulas import transform_operations  # noqa: E402
from mmwcc.inference import FoldedConv, fuse_inverted_residuals, to_integer  # noqa: E402
from mmwcc.layers import (  # noqa: E402
    DepthwiseFastWaveletTransform,
    QuantConv2d,
    QuantLinear,
    TokenGrid,
    WaveletCompressedConv2d,
    WaveletCompressedLinear,
    WaveletConv2d,
)
from mmwcc.quantizers import tolerate_unlearned  # noqa: E402

WEIGHT, ACT = (
    dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    dict(type='mmwcc.LearnedClipActQuantizer', bits=4),
)


class Network(nn.Module):
    """All kinds of layers; one is called twice, one never, and the output is nested."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.point = WaveletCompressedConv2d(
            16, 16, keep_ratio=0.5, weight_quant=WEIGHT, act_quant=ACT
        )
        self.spatial = QuantConv2d(16, 8, 3, weight_quant=WEIGHT, act_quant=ACT, groups=2)
        self.up = nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=2)
        self.classify = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        self.auxiliary = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU())

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = self.up(self.spatial(self.point(self.point(x))))
        return dict(scores=[self.classify(x)])


def by_name(report):
    return {layer.name: layer for layer in report.layers}


def test_network():
    report = count_cost(Network(), (25, 31))
    layers = by_name(report)
    assert list(layers) == ['stem', 'point', 'spatial', 'up', 'classify.2']
    assert layers['stem'].macs == 3 * 16 * 9 * 13 * 16 and layers['stem'].kind == 'dense'
    point = layers['point']
    assert (point.kind, point.calls, point.params) == ('wcc', 2, 272)
    assert point.macs == 2 * 128 * 256 and point.bops == 32 * point.macs  # half of the padded 16x16
    assert point.transform_bops == 2 * 4 * (16 + 16) * 256 * 21 / 16 * 4
    assert (
        layers['spatial'].macs == 16 * 8 // 2 * 9 * 11 * 14
        and layers['spatial'].kind == 'quantized'
    )
    assert (layers['spatial'].weight_bits, layers['spatial'].act_bits) == (8, 4)
    assert layers['up'].macs == 8 * 8 // 2 * 16 * 11 * 14
    assert layers['classify.2'].macs == 40
    assert report.elementwise == dict(batch_norm=2 * 16 * 13 * 16, adaptive_avg_pool2d=8 * 22 * 28)
    assert report.uncounted == {}
    assert report.uncalled == ('auxiliary',) and report.input_shape == (1, 3, 25, 31)
    assert report.other_params == 32 + 4  # normalization and clips


def test_scales_of_channels_are_bytes():
    weight = dict(WEIGHT, per_channel=True)
    layers = nn.Sequential(
        WaveletCompressedConv2d(8, 16, keep_ratio=0.5, bias=False, weight_quant=weight),
        QuantConv2d(16, 4, 3, weight_quant=weight),
    )
    point, spatial = count_cost(layers, (16, 16)).layers
    assert point.weight_bytes == 8 * 16 + 4 * 16
    assert spatial.weight_bytes == 16 * 4 * 9 + 4 * 4 + 4 * 4
    assert point.at(weight_bits=4).weight_bytes == 4 * 16 + 4 * 16
    assert point.at(weight_bits=32).weight_bytes == 4 * 8 * 16
    assert point.params == 8 * 16
    layers(torch.randn(1, 8, 16, 16))
    assert FoldedConv(layers[0].eval(), activation=nn.Identity()).weight_scales == 16


def test_convention_of_the_paper():
    layers = by_name(count_cost(Network(), (25, 31), convention='paper'))
    assert layers['stem'].macs == 3 * 16 * 9 * 25 * 31 / 4
    assert layers['point'].macs == 2 * 0.5 * 256 * 13 * 16
    assert layers['point'].transform_bops == 2 * 4 * (16 + 16) * 13 * 16 * 21 / 16 * 4
    assert (
        layers['spatial'].macs == 16 * 8 // 2 * 9 * 11 * 14
    )  # what is left of 13x16 without padding
    assert layers['up'].macs == 8 * 8 // 2 * 16 * 11 * 14


@pytest.mark.parametrize('training', [True, False])
def test_nothing_changes(training):
    model = Network().train(training)
    model.norm.eval()
    tolerate_unlearned(model)
    model(torch.rand(2, 3, 9, 9))['scores'][0].sum().backward()
    before, modes = (
        copy.deepcopy(model.state_dict()),
        [module.training for module in model.modules()],
    )
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    random, fused = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    count_cost(model, (9, 9))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert modes == [module.training for module in model.modules()]
    assert all(
        p.grad is g is None or torch.equal(p.grad, g)
        for p, g in zip(model.parameters(), grads, strict=True)
    )
    assert (model.point.weight_quant.bits, model.point.act_quant.bits) == (8, 4)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert (
        torch.equal(random, torch.get_rng_state())
        and torch.backends.mha.get_fastpath_enabled() == fused
    )


def test_uncalibrated_quantizers_stay_so_without_a_warning(recwarn):
    model = Network().train()
    count_cost(model, (9, 9))
    assert not model.point.act_quant.initialized
    assert not [
        warning for warning in recwarn if 'before its clip was learned' in str(warning.message)
    ]


def test_a_model_that_fails_is_left_clean():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), QuantConv2d(9, 8, 1, act_quant=ACT)).train()
    with pytest.raises(
        ValueError,
        match=r'count_cost: Sequential must run on an input of shape \(1, 3, 9, 9\), but',
    ):
        count_cost(model, (9, 9))
    assert model.training and model[1].act_quant.bits == 4
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_strided_wavelet_layer():
    model = WaveletCompressedConv2d(8, 4, stride=2, keep_ratio=0.5)
    exact, paper = (
        count_cost(model, (17, 32), convention=convention).layers[0]
        for convention in ('exact', 'paper')
    )
    assert exact.macs == 32 * 16 * 16 / 2 and exact.name == ''  # the subsampled 9x16, padded
    assert paper.macs == 0.5 * 32 * 17 * 32 / 4
    assert exact.transform_bops == 4 * 12 * 256 * 21 / 16 * 32


@pytest.mark.parametrize('padding', [2, 'same', 0])
def test_paper_takes_the_size_without_padding(padding):
    """Padding in front of a convolution or its own: the same figure."""
    conv = nn.Conv2d(
        4, 4, 3, stride=1 if padding == 'same' else 2, padding=padding, dilation=2, groups=4
    )
    model = conv if padding else nn.Sequential(nn.ZeroPad2d(2), conv)
    assert (
        count_cost(model, (4, 11, 13), convention='paper').total.macs
        == 4 * 9 * 11 * 13 / conv.stride[0] ** 2
    )


def test_other_wavelets_count_by_formula_and_list_no_arithmetic():
    pytest.importorskip('pywt')
    report = count_cost(
        WaveletCompressedConv2d(8, 8, keep_ratio=0.5, wavelet='db2', weight_quant=WEIGHT), (16, 16)
    )
    assert report.layers[0].transform_bops == 4 * 16 * 256 * 21 / 16 * 32 * 4 * 8
    assert report.uncounted == {}


def test_wavelet_network_layers():
    model = nn.Sequential(
        WaveletConv2d(32, 32, 1, kappa=2, dfwt=2, bias=False), DepthwiseFastWaveletTransform(3)
    )
    report = count_cost(model, (32, 5, 7))
    assert [(layer.name, layer.kind) for layer in report.layers] == [
        ('0.dfwt', 'transform'),
        ('0.pieces.0', 'dense'),
        ('0.pieces.1', 'dense'),
        ('0.pieces.2', 'dense'),
        ('1', 'transform'),
    ]
    assert report.total.macs == 35 * (16 * 8 + 8 * 8 + 8 * 16)
    assert report.layers[0].transform_bops == 35 * (32 + 16) * 32
    assert report.layers[-1].transform_bops == 35 * (32 + 16 + 8) * 32
    assert report.uncounted == {}


class Attention(nn.Module):
    def __init__(self, fused=False, mask=None):
        super().__init__()
        self.attention, self.fused = nn.MultiheadAttention(8, 2, batch_first=True), fused
        self.mask = mask

    def forward(self, x):
        return self.attention(x, x, x, need_weights=not self.fused, attn_mask=self.mask)[0]


@pytest.mark.parametrize('mask', [None, torch.zeros(5, 5)], ids=['all', 'mask'])
@pytest.mark.parametrize('fused', [False, True])
def test_attention(fused, mask):
    model = Attention(fused, mask).eval()
    report = count_cost(model, inputs=torch.zeros(3, 5, 8))
    assert [(layer.name, layer.kind) for layer in report.layers] == [('attention', 'dense')]
    assert report.total.macs == 3 * (4 * 5 * 8 * 8 + 2 * 5 * 5 * 8)
    assert report.total.params == 4 * 64 + 4 * 8 and report.layers[0].params == 0
    with pytest.raises(ValueError, match='Only 1x1 convolutions'):
        report.layers[0].at(keep_ratio=0.5)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, images, scale=None, mode='loss'):
        assert mode == 'tensor'
        return self.conv(torch.stack(images)) * (1 if scale is None else scale)


def test_inputs_of_any_form():
    images = [torch.zeros(3, 6, 7), torch.zeros(3, 6, 7)]
    for inputs in ((images, torch.ones(1)), dict(images=images, scale=torch.ones(1)), (images,)):
        report = count_cost(TwoInputs(), inputs=inputs)
        assert report.total.macs == 2 * 12 * 42 and report.input_shape is None
    assert 'several inputs' in str(report)
    with pytest.raises(ValueError, match='must run on these inputs, but AssertionError'):
        count_cost(TwoInputs(), inputs=dict(images=images, mode='loss'))  # a mode of its own
    assert count_cost(nn.Conv2d(3, 4, 1), inputs=torch.zeros(2, 3, 6, 7)).input_shape == (
        2,
        3,
        6,
        7,
    )


def test_wrappers_are_looked_through():
    wrapped = nn.Module()
    wrapped.module = nn.Sequential(nn.Conv2d(3, 4, 1))
    assert [layer.name for layer in count_cost(wrapped, (5, 5)).layers] == ['0']


def test_one_dimension_and_no_batch():
    report = count_cost(
        nn.Sequential(nn.Conv1d(3, 4, 3, groups=1), nn.Conv1d(4, 4, 1)),
        inputs=torch.zeros(2, 3, 10),
    )
    assert [layer.macs for layer in report.layers] == [2 * 36 * 8, 2 * 16 * 8]
    assert report.layers[1].geometry.pointwise is None
    assert count_cost(nn.Conv2d(3, 4, 1), inputs=torch.zeros(3, 5, 5)).total.macs == 12 * 25


def quantized_block():
    model = nn.Sequential(
        nn.Sequential(
            WaveletCompressedConv2d(
                8, 16, keep_ratio=0.5, bias=False, weight_quant=WEIGHT, act_quant=ACT
            ),
            nn.BatchNorm2d(16),
            nn.ReLU6(),
            QuantConv2d(
                16, 16, 3, padding=1, groups=16, bias=False, weight_quant=WEIGHT, act_quant=ACT
            ),
            nn.BatchNorm2d(16),
            nn.ReLU6(),
            WaveletCompressedConv2d(
                16, 8, keep_ratio=0.5, bias=False, weight_quant=WEIGHT, act_quant=ACT
            ),
            nn.BatchNorm2d(8),
        )
    )
    model(torch.rand(1, 8, 16, 24))
    return model.eval()


def test_fused_blocks_cost_what_their_layers_cost():
    model = quantized_block()
    plain = count_cost(model, (20, 30))
    assert fuse_inverted_residuals(model, verbose=False)[0].depthwise
    fused = count_cost(model, (8, 20, 30))
    assert [layer.name for layer in fused.layers] == ['0.expand', '0.depthwise', '0.project']
    for one, other in zip(plain.layers, fused.layers, strict=True):
        assert (
            one.kind,
            one.macs,
            one.bops,
            one.transform_bops,
            one.weight_bits,
            one.act_bits,
            one.keep_ratio,
            one.act_bytes,
        ) == (
            other.kind,
            other.macs,
            other.bops,
            other.transform_bops,
            other.weight_bits,
            other.act_bits,
            other.keep_ratio,
            other.act_bytes,
        )


def test_integer_layers_cost_what_they_were():
    model = nn.Sequential(
        WaveletCompressedConv2d(
            8, 16, keep_ratio=0.5, stride=2, weight_quant=WEIGHT, act_quant=ACT
        ),
        QuantConv2d(16, 4, 1, weight_quant=WEIGHT, act_quant=ACT),
    )
    model(torch.rand(1, 8, 20, 30))
    model.eval()
    plain = count_cost(model, (20, 30))
    to_integer(model, verbose=False)
    integer = count_cost(model, (8, 20, 30))
    assert [(layer.kind, layer.macs, layer.total_bops, layer.params) for layer in plain.layers] == [
        (layer.kind, layer.macs, layer.total_bops, layer.params) for layer in integer.layers
    ]
    assert [layer.kind for layer in integer.layers] == ['wcc', 'quantized']
    # Integer layers store a scale for each output channel, even if the weights had a single one.
    for before, after, channels in zip(plain.layers, integer.layers, (16, 4), strict=True):
        assert after.weight_bytes == before.weight_bytes + 4 * channels


@pytest.mark.parametrize(
    ('kwargs', 'error', 'message'),
    [
        (dict(), ValueError, 'exactly one of input_shape and inputs must be given, got none'),
        (dict(input_shape=(5, 5), inputs=torch.zeros(1)), ValueError, 'must be given, got both'),
        (
            dict(input_shape=(5, 0)),
            ValueError,
            r'input_shape must be made of positive integers, got \(5, 0\)',
        ),
        (dict(input_shape=5), ValueError, 'input_shape must be made of positive integers, got 5'),
        (
            dict(input_shape=(5, 5), convention='exakt'),
            ValueError,
            'count_cost: convention must be one of exact, paper',
        ),
    ],
)
def test_refusals(kwargs, error, message):
    with pytest.raises(error, match=message):
        count_cost(nn.Conv2d(3, 4, 1), **kwargs)


def test_refuses_what_is_no_model_and_sizes_without_a_convolution():
    with pytest.raises(TypeError, match='count_cost: model must be a torch.nn.Module, got {.type'):
        count_cost(dict(type='x'), (5, 5))
    with pytest.raises(ValueError, match='Linear has no convolution that tells the channels'):
        count_cost(nn.Linear(3, 4), (5, 5))


class Tokens(nn.Module):
    """Two linear layers on a map with a class token before it, and one on queries."""

    def __init__(self, layer, query):
        super().__init__()
        self.stem, self.layer, self.query = nn.Conv2d(3, 8, 1), layer, query

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = self.layer(torch.cat([x[:, :1], x], 1))
        return self.query(x[:, :3])


def test_linear_layers_cost_what_their_maps_and_tokens_do():
    layer = WaveletCompressedLinear(8, 16, keep_ratio=0.25, weight_quant=WEIGHT, act_quant=ACT)
    layer.token_grid = TokenGrid([(12, 14)], extra=1)
    query = QuantLinear(16, 4, weight_quant=WEIGHT, act_quant=ACT)
    report = count_cost(Tokens(layer, query), (12, 14))
    costs = {cost.name: cost for cost in report.layers}
    # 12x14 has two levels: three would be padded to 16x16.
    rows = -(-(12 * 16) // 4) + 1
    assert (costs['layer'].kind, costs['layer'].calls) == ('wcc', 1)
    assert costs['layer'].macs == rows * 8 * 16
    assert costs['layer'].bops == costs['layer'].macs * 8 * 4
    assert costs['layer'].transform_bops == 4 * transform_operations(8 + 16, 12 * 16, levels=2)
    assert costs['layer'].params == 8 * 16 + 16
    assert costs['query'].kind == 'quantized' and costs['query'].macs == 3 * 16 * 4
    assert not report.uncounted
    everything = costs['layer'].at(keep_ratio=1.0)
    assert everything.macs == (12 * 16 + 1) * 8 * 16
    with pytest.raises(ValueError, match='linear layers on maps, can be wavelet compressed'):
        costs['query'].at(keep_ratio=0.5)


def test_windows_are_counted_one_by_one():
    layer = WaveletCompressedLinear(8, 16, keep_ratio=0.25)
    layer.token_grid = TokenGrid([(7, 7)])
    report = count_cost(nn.Sequential(nn.Identity(), layer), inputs=torch.zeros(5, 49, 8))
    (cost,) = report.layers
    assert cost.macs == 5 * 16 * 8 * 16  # 7x7 is padded to 8x8
    assert report.kept_share == pytest.approx(16 / 49)


def test_a_linear_layer_without_maps_costs_what_a_dense_one_does():
    layer = WaveletCompressedLinear(8, 16, keep_ratio=0.25)
    (cost,) = count_cost(nn.Sequential(layer), inputs=torch.zeros(2, 9, 8)).layers
    assert (cost.macs, cost.transform_bops) == (2 * 9 * 8 * 16, 0)
