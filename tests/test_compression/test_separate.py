"""Separation of any module in place, alone and as a key of the compression dictionary."""

import pytest
import torch
from torch import nn

from mmwcc.compression import compress_model, separate_convs
from mmwcc.layers import QuantConv2d, SeparableConv2d, WaveletCompressedConv2d
from mmwcc.model_tree.compressed import compressed_layers

WCC = dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5)
FULL = dict(
    pointwise=WCC,
    other=dict(type='mmwcc.QuantConv2d'),
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
)


class OwnForward(nn.Conv2d):
    def forward(self, x):
        return super().forward(2 * x)


class Net(nn.Module):
    """One layer of every kind; ``again`` is ``strided`` under a second name."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.plain = nn.Conv2d(8, 8, 3, padding=1)
        self.strided = nn.Conv2d(8, 8, 5, stride=2, padding=2)
        self.again = self.strided
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.point = nn.Conv2d(8, 8, 1)
        self.own = OwnForward(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, x):
        x = self.point(self.grouped(self.again(self.strided(self.plain(self.stem(x))))))
        return self.last(self.own(x))


def test_which_convolutions_are_separated():
    model = Net().eval()
    report = separate_convs(model, verbose=False)
    reasons = {layer.name: layer.reason for layer in report}
    assert reasons == {
        'stem': "keep_dense 'first'",
        'plain': '',
        'strided': '',
        'grouped': '2 groups',
        'point': '1x1',
        'own': 'OwnForward has a forward of its own',
        'last': "keep_dense 'last'",
    }
    assert {
        name for name, module in model.named_modules() if isinstance(module, SeparableConv2d)
    } == {'plain', 'strided'}
    assert model.again is model.strided and not model.plain.training
    assert report.summary() == '2 of 7 convolutions separated'
    assert str(report).splitlines()[0].split() == [
        'layer',
        'from',
        'MACs/position',
        'before',
        'after',
        'error',
        'note',
    ]


def test_operations_of_one_position_and_of_an_image():
    plain = {layer.name: layer for layer in separate_convs(Net(), verbose=False)}['plain']
    assert (plain.macs_before, plain.macs_after) == (8 * 8 * 9, 8 * 9 + 8 * 8)
    report = separate_convs(Net(), input_shape=(16, 12), verbose=False)
    whole = {layer.name: (layer.macs_before, layer.macs_after) for layer in report}
    assert whole['plain'] == (192 * 576, 192 * 136)
    assert whole['strided'] == ((48 + 12) * 8 * 8 * 25, (48 + 12) * (8 * 25 + 8 * 8))
    assert whole['point'] == (12 * 64, 12 * 64)


def test_the_error_is_that_of_the_kernel():
    model = Net()
    dense = model.plain.weight.detach().clone()
    layer = separate_convs(model, verbose=False)[1]
    nearest = model.plain.pointwise_conv.weight * model.plain.depthwise_conv.weight.transpose(0, 1)
    assert layer.error == pytest.approx(
        float((dense - nearest.detach()).norm() / dense.norm()), rel=1e-5
    )
    assert separate_convs(Net(), init='random', verbose=False)[1].error is None


def test_rules_are_exceptions_and_later_ones_win():
    model = Net()
    report = separate_convs(
        model,
        [dict(pattern='.*', dense=True), dict(pattern='pl.*', dense=False, init='random')],
        keep_dense=[],
        verbose=False,
    )
    assert [layer.name for layer in report if not layer.reason] == ['plain']
    assert {layer.reason for layer in report} == {'', 'rule'}
    assert report[1].error is None


def test_a_separable_kernel_changes_nothing():
    model, x = Net().double(), torch.randn(1, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        model.plain.weight.copy_(torch.randn(8, 8, 1, 1) * torch.randn(1, 8, 3, 3))
        expected = model(x)
    separate_convs(model, [dict(pattern='strided|again', dense=True)], verbose=False)
    assert isinstance(model.plain, SeparableConv2d)
    torch.testing.assert_close(model(x), expected)


def test_dense_checkpoints_load_into_the_separated_model():
    dense, model = Net(), Net()
    separate_convs(dense_copy := Net(), verbose=False)
    separate_convs(model, verbose=False)
    dense_copy.load_state_dict(dense.state_dict())
    model.load_state_dict(dense_copy.state_dict())
    separate_convs(dense, verbose=False)
    x = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(model(x), dense(x))


def test_a_switch_of_the_compression_dictionary():
    model = Net()
    report = compress_model(
        model, {**FULL, 'separate': dict(rules=[dict(pattern='plain', dense=True)])}, verbose=False
    )
    after = {layer.name: layer.after for layer in report}
    assert after['strided.depthwise_conv'] == 'QuantConv2d'
    assert after['strided.pointwise_conv'] == after['point'] == 'WaveletCompressedConv2d'
    assert after['plain'] == 'QuantConv2d' and after['stem'] == after['last'] == 'dense'
    assert type(model.strided.pointwise_conv) is WaveletCompressedConv2d
    assert type(model.strided.depthwise_conv) is QuantConv2d
    model(torch.randn(1, 3, 16, 16)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_dense_checkpoints_load_into_a_separated_and_compressed_model():
    dense, model = Net(), Net()
    compress_model(model, {**FULL, 'separate': dict()}, verbose=False)
    missing = model.load_state_dict(dense.state_dict(), strict=False)
    assert not missing.unexpected_keys and all('_quant.' in key for key in missing.missing_keys)
    separate_convs(dense, verbose=False)
    torch.testing.assert_close(model.plain.pointwise_conv.weight, dense.plain.pointwise_conv.weight)


def test_keep_dense_and_rules_may_name_the_new_layers():
    model = Net()
    compress_model(
        model,
        {
            **FULL,
            'separate': dict(),
            'keep_dense': ['first', r'plain\.depthwise_conv', 'last'],
            'rules': [dict(pattern=r'plain\.pointwise_conv', keep_ratio=0.25)],
        },
        verbose=False,
    )
    assert type(model.plain.depthwise_conv) is nn.Conv2d
    assert (
        model.plain.pointwise_conv.keep_ratio == 0.25
        and model.strided.pointwise_conv.keep_ratio == 0.5
    )


def test_both_parts_of_a_separated_first_and_last_layer_are_kept():
    model = nn.Sequential(SeparableConv2d(3, 8, 3), nn.Conv2d(8, 8, 1), SeparableConv2d(8, 2, 3))
    compress_model(model, FULL, verbose=False)
    assert list(compressed_layers(model)) == ['1']


@pytest.mark.parametrize(
    ('arguments', 'error', 'message'),
    [
        (dict(rules=['plain']), TypeError, 'a rule must be a dict'),
        (dict(rules=[dict(dense=True)]), ValueError, 'a rule needs a pattern'),
        (
            dict(rules=[dict(pattern='plain', keep_ratio=0.5)]),
            ValueError,
            "unknown key 'keep_ratio'. .*pattern, dense, init",
        ),
        (
            dict(rules=[dict(pattern='plane', dense=True)]),
            ValueError,
            "separate_convs: the rule 'plane' matches no convolution.* Did you mean 'plain'",
        ),
        (
            dict(keep_dense=['head']),
            ValueError,
            "separate_convs: the keep_dense entry 'head' matches no convolution",
        ),
        (
            dict(init='zero'),
            ValueError,
            "separate_convs: init must be 'svd' or 'random', got 'zero'",
        ),
        (
            dict(rules=[dict(pattern='plain', init='zero')]),
            ValueError,
            "init must be 'svd' or 'random', got 'zero'",
        ),
        (
            dict(input_shape=(5, 16, 16)),
            ValueError,
            r'Net must run on zeros of shape \(1, 5, 16, 16\)',
        ),
    ],
)
def test_wrong_arguments_are_refused_before_anything_changes(arguments, error, message):
    model = Net()
    with pytest.raises(error, match=message):
        separate_convs(model, **arguments)
    assert not any(
        isinstance(module, SeparableConv2d) or module._forward_hooks for module in model.modules()
    )


@pytest.mark.parametrize(
    ('separate', 'error', 'message'),
    [
        (True, TypeError, 'separate must be a dict or None, got True'),
        (
            dict(rule=[]),
            ValueError,
            "compression separate: unknown key 'rule'. Did you mean 'rules'",
        ),
    ],
)
def test_wrong_dictionaries_are_refused(separate, error, message):
    with pytest.raises(error, match=message):
        compress_model(Net(), {**FULL, 'separate': separate}, verbose=False)


def test_a_model_without_convolutions_is_refused():
    with pytest.raises(
        ValueError, match='separate_convs: the model must contain convolutions .*got Linear'
    ):
        separate_convs(nn.Linear(3, 3))
