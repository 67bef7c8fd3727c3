"""BatchNorm folded into layers whose clips are learned, and weights that are replaced in other
ways.
"""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mmwcc.inference import IntegerConv2d, IntegerWaveletCompressedConv2d, to_integer
from mmwcc.inference.inverted_residual import FoldedConv
from mmwcc.layers import QuantConv2d, WaveletCompressedConv2d

QUANTIZERS = {
    'learned clip': dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    'standard': dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8, normalize='standard'),
    'rescale': dict(type='mmwcc.LearnedClipWeightQuantizer', bits=4, normalize='rescale'),
    'lsq': dict(type='mmwcc.LSQWeightQuantizer', bits=2),
    'channels': dict(type='mmwcc.LearnedClipWeightQuantizer', bits=4, per_channel=True),
    'lsq of channels': dict(type='mmwcc.LSQWeightQuantizer', bits=4, per_channel=True),
}
LAYERS = {
    'wavelets': lambda **quantizers: WaveletCompressedConv2d(
        6, 8, keep_ratio=0.5, levels=2, **quantizers
    ),
    'one by one': lambda **quantizers: QuantConv2d(6, 8, 1, bias=False, **quantizers),
    'depthwise': lambda **quantizers: QuantConv2d(6, 12, 3, padding=1, groups=6, **quantizers),
}
every_quantizer = pytest.mark.parametrize('quantizer', QUANTIZERS)
every_layer = pytest.mark.parametrize('kind', LAYERS)


def trained(kind, quantizer='learned clip', act=True):
    """Return a layer and a BatchNorm whose factors differ by orders of magnitude, with signs and
    zeros.
    """
    act_quant = dict(type='mmwcc.LearnedClipActQuantizer', bits=8) if act else None
    layer = LAYERS[kind](weight_quant=QUANTIZERS[quantizer], act_quant=act_quant)
    layer(image())
    norm = nn.BatchNorm2d(layer.out_channels)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-2, 3, len(norm.weight)))
        norm.weight[2] = 0
        norm.running_var.copy_(torch.logspace(-4, 1, len(norm.weight)))
        norm.running_mean.normal_()
        norm.bias.normal_()
    return layer.eval(), norm.eval()


def image():
    return torch.randn(2, 6, 9, 11, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def assert_same(one, other):
    """Compare outputs channel by channel: the smallest must be as exact as the largest."""
    expected = other(image())
    scale = expected.abs().amax((0, 2, 3), keepdim=True)
    assert ((one(image()) - expected).abs() <= 3e-6 * scale).all()


@every_layer
@every_quantizer
def test_torch_folds_batch_norm_exactly(kind, quantizer):
    layer, norm = trained(kind, quantizer)
    folded = fuse_conv_bn_eval(layer, norm)
    assert type(folded) is type(layer)
    assert_same(folded, nn.Sequential(layer, norm))
    assert layer.weight_scale is None  # it folds into a copy


@every_layer
def test_mmcv_folds_batch_norm_exactly(kind):
    cnn = pytest.importorskip('mmcv.cnn')
    layer, norm = trained(kind)
    folded = cnn.fuse_conv_bn(nn.Sequential(copy.deepcopy(layer), copy.deepcopy(norm)))
    assert isinstance(folded[1], nn.Identity)
    assert_same(folded, nn.Sequential(layer, norm))


@every_quantizer
def test_folding_twice_multiplies_the_factors(quantizer):
    layer, norm = trained('wavelets', quantizer)
    second = copy.deepcopy(norm)
    with torch.no_grad():
        second.weight.mul_(-3)
    folded = fuse_conv_bn_eval(fuse_conv_bn_eval(layer, norm), second)
    assert_same(folded, nn.Sequential(layer, norm, second))


def test_unquantized_weights_are_folded_as_they_are():
    layer, norm = trained('wavelets')
    layer.weight_quant = None
    folded = fuse_conv_bn_eval(layer, norm)
    assert folded.weight_scale is None
    assert not torch.equal(folded.weight, layer.weight)
    assert_same(folded, nn.Sequential(layer, norm))


@every_quantizer
@pytest.mark.parametrize(
    'kind, integer_type',
    [('wavelets', IntegerWaveletCompressedConv2d), ('one by one', IntegerConv2d)],
)
def test_a_folded_layer_becomes_integers(kind, integer_type, quantizer):
    layer, norm = trained(kind, quantizer)
    folded = fuse_conv_bn_eval(layer, norm)
    integer = integer_type.from_layer(folded)
    with torch.no_grad():
        expected = norm(layer(image()))
        scale = expected.abs().amax((0, 2, 3), keepdim=True)
        assert ((integer(image()) - expected).abs() <= 1e-4 * scale).all()


@every_quantizer
def test_fused_blocks_know_what_was_folded(quantizer):
    layer, norm = trained('wavelets', quantizer, act=False)
    folded = fuse_conv_bn_eval(layer, norm)
    assert_same(
        FoldedConv(folded, activation=nn.Identity()), FoldedConv(layer, norm, nn.Identity())
    )


def test_a_folded_layer_is_saved_loaded_and_copied():
    layer, norm = trained('wavelets')
    folded = fuse_conv_bn_eval(layer, norm)
    fresh = LAYERS['wavelets'](
        weight_quant=QUANTIZERS['learned clip'],
        act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
    ).eval()
    fresh.load_state_dict(folded.state_dict())
    assert_same(fresh, folded)
    assert_same(copy.deepcopy(folded), folded)
    fresh.load_state_dict(layer.state_dict())  # not folded: the factors are forgotten
    assert fresh.weight_scale is None
    assert_same(fresh, layer)


@every_layer
def test_gradients_pass_the_factors(kind):
    layer, norm = trained(kind)
    folded = fuse_conv_bn_eval(layer, norm)
    probe = torch.randn(nn.Sequential(layer, norm)(image()).shape)
    norm.requires_grad_(False)
    for parameter in (*layer.parameters(), *folded.parameters()):
        parameter.grad = None
    nn.Sequential(layer, norm)(image()).mul(probe).sum().backward()
    folded(image()).mul(probe).sum().backward()
    for name in ('weight', 'weight_quant.clip_alpha', 'act_quant.clip_alpha'):
        expected = layer.get_parameter(name).grad
        torch.testing.assert_close(
            folded.get_parameter(name).grad,
            expected,
            rtol=1e-4,
            atol=1e-5 * float(expected.abs().max()),
        )


@every_layer
def test_another_weight_is_refused_once_the_clip_is_learned(kind):
    layer, _ = trained(kind)
    before = layer.weight
    with pytest.raises(
        RuntimeError,
        match='weight must be the present one times one factor for each output channel, '
        'as folding of BatchNorm makes it, because weight_quant has learned its '
        'clip; got another weight. Call weight_quant.reset_parameters',
    ):
        layer.weight = nn.Parameter(torch.randn_like(before))
    assert layer.weight is before
    layer.weight_quant.reset_parameters()
    layer.weight = nn.Parameter(torch.randn_like(before))  # learned again by the next batch
    assert layer.weight is not before


def test_the_same_values_in_another_parameter_are_that_parameter():
    layer, _ = trained('one by one')
    layer.weight = twin = nn.Parameter(layer.weight.detach().clone())
    assert layer.weight is twin and layer.weight_scale is None
    layer(image()).sum().backward()
    assert twin.grad is not None  # an optimizer that holds it trains the layer


def test_weights_of_zeros_are_taken_as_they_are():
    layer, _ = trained('one by one')
    layer.weight = zeros = nn.Parameter(torch.zeros_like(layer.weight))
    assert layer.weight is zeros and layer.weight_scale is None


@every_layer
@pytest.mark.parametrize('factor', [4.0, -1.0, 'another'])
def test_a_checkpoint_is_assigned_and_not_folded(kind, factor):
    layer, _ = trained(kind)
    other = copy.deepcopy(layer)
    with torch.no_grad():
        other.weight.copy_(
            torch.randn_like(other.weight) if factor == 'another' else factor * other.weight
        )
    other.weight_quant.reset_parameters()
    other.train()(image())
    layer.load_state_dict(other.eval().state_dict(), assign=True)
    assert layer.weight_scale is None
    assert_same(layer, other)


def register(layer, weight):
    layer.register_parameter('weight', weight)


def delete_and_set(layer, weight):
    del layer.weight
    layer.weight = weight


@pytest.mark.parametrize('replace', [register, delete_and_set])
def test_other_ways_to_replace_a_weight(replace):
    layer, norm = trained('wavelets')
    expected = nn.Sequential(copy.deepcopy(layer), norm)
    weight, bias = nn.utils.fusion.fuse_conv_bn_weights(
        layer.weight,
        layer.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    folded = copy.deepcopy(layer)
    replace(folded, weight)
    folded.bias = bias
    assert_same(folded, expected)
    with pytest.raises(RuntimeError, match='weight must be the present one times one factor'):
        replace(layer, nn.Parameter(torch.randn_like(weight)))


def test_reset_parameters_resets_what_was_learned():
    layer = fuse_conv_bn_eval(*trained('wavelets'))
    layer.reset_parameters()
    assert layer.weight_scale is None
    assert not layer.weight_quant.is_settled and not layer.act_quant.is_settled


@every_layer
@pytest.mark.parametrize(
    'quantizer', ['learned clip', 'channels']
)  # at 2 bits every clip loses much
def test_a_weight_that_was_overwritten_is_noticed(kind, quantizer):
    layer, _ = trained(kind, quantizer)
    layer.eval()  # no warning so far
    layer.weight.data = layer.weight.data * torch.logspace(-2, 2, len(layer.weight)).reshape(
        -1, 1, 1, 1
    )
    with pytest.warns(
        UserWarning, match='the clip of weight_quant must have been learned on the weight'
    ):
        layer.eval()
    if kind != 'depthwise':
        with pytest.raises(RuntimeError, match='The weight was overwritten in place'):
            {'wavelets': IntegerWaveletCompressedConv2d, 'one by one': IntegerConv2d}[
                kind
            ].from_layer(layer)
    layer.weight_quant.reset_parameters()
    layer.train()(image())
    assert layer.clip_fits()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_folding_in_half_precision(dtype):
    layer, norm = trained('one by one')
    with torch.no_grad():
        norm.weight[3:5] = torch.tensor([1e-5, -1e-6])
    layer, norm = layer.to(dtype), norm.to(dtype)
    folded = fuse_conv_bn_eval(layer, norm)
    with torch.no_grad():
        expected = norm(layer(image().to(dtype))).float()
        error = (folded(image().to(dtype)).float() - expected).abs()
    assert (
        error <= 16 * torch.finfo(dtype).eps * expected.abs().amax((0, 2, 3), keepdim=True)
    ).all()


def test_layers_are_called_by_keyword_as_nn_conv2d_is():
    layer, _ = trained('one by one')
    assert torch.equal(layer(input=image()), layer(image()))


def test_integers_hold_no_trace_of_the_folding():
    layer, norm = trained('wavelets')
    model, plain = nn.Sequential(fuse_conv_bn_eval(layer, norm)), nn.Sequential(layer)
    for each in (model, plain):
        to_integer(each, verbose=False)
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_a_weight_may_change_before_the_clip_is_learned():
    layer = LAYERS['wavelets'](weight_quant=QUANTIZERS['learned clip'])
    layer.weight = weight = nn.Parameter(torch.randn(8, 6, 1, 1))
    assert layer.weight is weight
