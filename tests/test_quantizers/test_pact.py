"""PACT against its equations, and in the layers that quantize without calling it."""

import pytest
import torch

from mmwcc.inference import FoldedConv, IntegerConv2d
from mmwcc.layers import QuantConv2d, WaveletCompressedConv2d
from mmwcc.quantizers import LearnedClipActQuantizer, PACTActQuantizer
from mmwcc.registry import MODELS

PACT = dict(type='mmwcc.PACTActQuantizer', bits=4)


def paper(x, alpha, bits):
    """Return equations (1) and (2): the clamp, and its rounding, which the gradient goes straight
    through.
    """
    y = 0.5 * (x.abs() - (x - alpha).abs() + alpha)
    steps = (2**bits - 1) / alpha.detach()
    return y + ((y.detach() * steps).round() / steps - y.detach())


@pytest.mark.parametrize('bits', [2, 3, 4, 8])
def test_values_and_gradients_are_those_of_the_equations(bits):
    generator = torch.Generator().manual_seed(0)
    x, grad = 3 * torch.randn(1000, generator=generator), torch.randn(1000, generator=generator)
    quantizer = PACTActQuantizer(bits, signed=False, calibration=None, initial_clip=2.5)
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    alpha = torch.tensor(2.5, requires_grad=True)
    y, expected = quantizer(one), paper(other, alpha, bits)
    torch.testing.assert_close(y, expected)
    y.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(one.grad, other.grad)
    torch.testing.assert_close(quantizer.clip_alpha.grad[0], alpha.grad)
    torch.testing.assert_close(alpha.grad, grad[x >= 2.5].sum())


def test_values_at_the_clip_count():
    """As behind ReLU6, where all large values are equal."""
    quantizer = PACTActQuantizer(8, signed=False, calibration=None, initial_clip=6.0)
    quantizer(torch.tensor([0.0, 3.1, 6.0, 6.0, 6.0])).sum().backward()
    assert quantizer.clip_alpha.grad.item() == pytest.approx(3)


def test_signed_values_are_clipped_on_both_sides():
    quantizer = PACTActQuantizer(3, signed=True, calibration=None, initial_clip=3.0)
    x = torch.tensor([-9.0, -3.0, -1.2, 0.0, 2.9, 3.0, 4.0], requires_grad=True)
    y = quantizer(x)
    assert y.tolist() == [-3, -3, -1, 0, 3, 3, 3]
    y.backward(torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]))
    assert quantizer.clip_alpha.grad.item() == -1 - 2 + 32 + 64
    assert x.grad.tolist() == [0, 2, 4, 8, 16, 32, 0]


def test_it_starts_as_the_others_do():
    x = torch.randn(500).abs()
    pact, learned = PACTActQuantizer(4), LearnedClipActQuantizer(4)
    assert torch.equal(pact(x), learned(x))
    assert not pact.signed


@pytest.mark.parametrize('layer_type', [QuantConv2d, WaveletCompressedConv2d])
def test_layers_train_with_it(layer_type):
    options = dict(keep_ratio=0.5, levels=1) if layer_type is WaveletCompressedConv2d else {}
    layer = layer_type(3, 4, 1, act_quant=dict(PACT, calibration=None, initial_clip=0.5), **options)
    layer.weight_quant = None
    x = torch.rand(2, 3, 8, 8)
    layer(x).sum().backward()
    trained = layer.act_quant.clip_alpha.grad.clone()
    # The gradient of what is clipped alone: rounding finer does not change it.
    layer.zero_grad()
    layer.act_quant.bits = 16
    layer(x).sum().backward()
    torch.testing.assert_close(layer.act_quant.clip_alpha.grad, trained, rtol=1e-3, atol=1e-4)
    assert trained != 0


def test_fused_blocks_and_integers_compute_what_was_trained():
    layer = QuantConv2d(3, 4, 1, act_quant=PACT, weight_quant=dict(type='mmwcc.LSQWeightQuantizer'))
    x = torch.rand(2, 3, 8, 8)
    expected = layer(x)
    layer.eval()
    torch.testing.assert_close(FoldedConv(layer, activation=torch.nn.Identity())(x), expected)
    torch.testing.assert_close(IntegerConv2d.from_layer(layer)(x), expected, rtol=1e-4, atol=1e-5)


def test_it_is_registered():
    assert type(MODELS.build(dict(PACT))) is PACTActQuantizer
