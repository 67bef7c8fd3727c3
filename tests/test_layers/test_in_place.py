"""What layers and quantizers return may be written in place, as by ``nn.ReLU(inplace=True)`` behind
them.
"""

import pytest
import torch
from torch import nn

from mmwcc.layers import QuantConv2d, WaveletCompressedConv2d
from mmwcc.quantizers import LearnedClipActQuantizer, LSQActQuantizer

LAYERS = {
    'learned clip': lambda: LearnedClipActQuantizer(8),
    'lsq': lambda: LSQActQuantizer(8),
    'off': lambda: LearnedClipActQuantizer(32),
    'quantized': lambda: QuantConv2d(
        16, 16, 3, padding=1, act_quant=dict(type='mmwcc.LSQActQuantizer')
    ),
    'wavelets': lambda: WaveletCompressedConv2d(16, 16, keep_ratio=0.5),
    'quantized wavelets': lambda: WaveletCompressedConv2d(
        16, 16, keep_ratio=0.5, act_quant=dict(type='mmwcc.LSQActQuantizer')
    ),
}
# The kernels take the memory of large results from elsewhere.
SHAPES = {'small': (2, 16, 8, 8), 'unbatched': (16, 8, 8), 'large': (2, 16, 192, 192)}


@pytest.mark.parametrize('kind', LAYERS)
@pytest.mark.parametrize('size', SHAPES)
def test_an_activation_in_place_behind_it(kind, size):
    torch.manual_seed(0)
    layer, x = LAYERS[kind](), torch.randn(SHAPES[size])
    grads = []
    for inplace in (False, True):
        probe = x.clone().requires_grad_()
        y = nn.Sequential(layer, nn.ReLU(inplace=inplace))(probe)
        y.square().sum().backward()
        grads.append((y.detach(), probe.grad))
    for one, other in zip(*grads, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize('kind', LAYERS)
def test_the_input_is_left_alone(kind):
    layer, x = LAYERS[kind](), torch.randn(2, 16, 8, 8)
    before = x.clone().requires_grad_()
    nn.Sequential(layer, nn.ReLU(inplace=True))(before * 1)
    assert torch.equal(before, x)


@pytest.mark.parametrize('kind', ['learned clip', 'quantized', 'quantized wavelets'])
def test_straight_through_gradients_have_no_second_derivative(kind):
    layer, x = LAYERS[kind](), torch.randn(2, 16, 8, 8, requires_grad=True)
    (grad,) = torch.autograd.grad(layer(x).tanh().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        grad.square().sum().backward()


def test_layers_without_quantizers_have_one():
    layer = WaveletCompressedConv2d(16, 16, keep_ratio=1.0, bias=False)
    gradients = []
    for forward in (layer, lambda x: nn.functional.conv2d(x, layer.weight)):
        x = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
        (grad,) = torch.autograd.grad(forward(x).tanh().sum(), x, create_graph=True)
        gradients.append(torch.autograd.grad(grad.square().sum(), layer.weight)[0])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)
