"""QuantLinear: the linear layer it stands for, its quantized product, and one saved input."""

import copy

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from mmwcc.layers import QuantLinear
from mmwcc.testing import Grid, to_numpy

QUANTIZERS = dict(
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=4, normalize='rescale'),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=5),
)
SHAPES = [(3, 6), (6,), (2, 7, 6), (2, 3, 5, 6), (0, 6), (2, 0, 6)]


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_without_quantizers_it_is_the_dense_layer(shape, bias):
    dense = nn.Linear(6, 5, bias)
    layer = QuantLinear.from_linear(dense)
    x = torch.randn(shape, requires_grad=True)
    y, expected = layer(x), dense(x)
    torch.testing.assert_close(y, expected)
    grad, tensors = torch.randn_like(y), (x, *dense.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(y, tensors, grad), torch.autograd.grad(expected, tensors, grad)
    )
    with torch.no_grad():
        torch.testing.assert_close(layer.eval()(x), expected)


@pytest.mark.parametrize('scales', [{}, dict(per_channel=True)], ids=['layer', 'channel'])
@pytest.mark.parametrize('shape', SHAPES[:4], ids=str)
def test_quantized_operands_are_multiplied(shape, scales):
    layer = QuantLinear(
        6, 5, **dict(QUANTIZERS, weight_quant=dict(QUANTIZERS['weight_quant'], normalize=None))
    )
    if scales:
        weight_quant = dict(type='mmwcc.LSQWeightQuantizer', bits=4, **scales)
        layer = QuantLinear.from_linear(layer, **dict(QUANTIZERS, weight_quant=weight_quant))
    x = torch.randn(shape)
    y = layer(x)
    act = Grid(layer.act_quant.clip_alpha.item(), 5).quantize(to_numpy(x)).values
    torch.testing.assert_close(
        y,
        nn.functional.linear(torch.from_numpy(act).float(), layer.rounded_weight(), layer.bias),
        rtol=1e-4,
        atol=1e-5,
    )
    assert layer.weight_quant.clip_alpha.numel() == (5 if scales else 1)


def test_gradients_are_those_of_quantizing_and_multiplying():
    layer = QuantLinear(6, 5, **QUANTIZERS).double()
    x = torch.randn(2, 7, 6, dtype=torch.float64, requires_grad=True)
    layer(x)  # learns the clips
    tensors = x, *layer.parameters()
    expected = nn.functional.linear(
        layer.act_quant(x), layer.weight_quant(layer.weight), layer.bias
    )
    grad = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(layer(x), tensors, grad), torch.autograd.grad(expected, tensors, grad)
    )


def test_only_the_unquantized_input_is_saved_for_backward():
    layer, x = QuantLinear(64, 8, **QUANTIZERS), torch.randn(2, 500, 64, requires_grad=True)
    layer(x)
    saved = {}
    with saved_tensors_hooks(lambda t: saved.update({t.data_ptr(): t.numel()}) or t, lambda t: t):
        layer(x)
    assert sum(saved.values()) < x.numel() + layer.weight.numel() + 8
    assert saved[x.data_ptr()] == x.numel()


def test_parameters_and_checkpoints_are_those_of_the_dense_layer():
    dense = nn.Linear(6, 5)
    layer = QuantLinear.from_linear(dense, **QUANTIZERS)
    assert layer.weight is dense.weight and layer.bias is dense.bias
    loaded = QuantLinear(6, 5, **QUANTIZERS).load_state_dict(dense.state_dict(), strict=False)
    assert not loaded.unexpected_keys
    assert all('_quant.' in key for key in loaded.missing_keys)


def test_it_is_copied_with_what_it_has_learned():
    layer, x = QuantLinear(6, 5, **QUANTIZERS), torch.randn(3, 6)
    layer(x)
    torch.testing.assert_close(copy.deepcopy(layer).eval()(x), layer.eval()(x))


def test_autocast_computes_in_its_dtype():
    layer, x = QuantLinear(6, 5, **QUANTIZERS), torch.randn(3, 6)
    layer(x)
    with torch.autocast('cpu', torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


def test_the_width_of_the_input_is_checked():
    with pytest.raises(ValueError, match='QuantLinear: x must have in_features=6 as its last dim'):
        QuantLinear(6, 5)(torch.randn(2, 5))


def test_a_computed_weight_is_refused():
    dense = nn.utils.parametrizations.weight_norm(nn.Linear(6, 5))
    with pytest.raises(ValueError, match='QuantLinear: the weight of linear must be a parameter'):
        QuantLinear.from_linear(dense)
