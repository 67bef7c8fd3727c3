"""torch.fx traces compressed models as it traces dense ones."""

import copy

import pytest
import torch
from torch import nn

from mmwcc.compression import compress_model
from mmwcc.inference import fuse_inverted_residuals, to_integer
from mmwcc.layers import LeanReLU6, QuantConv2d, SeparableConv2d, WaveletConv2d

QUANTIZERS = dict(
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LSQActQuantizer', bits=8),
)
CONFIG = dict(
    pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5, levels=2),
    other=dict(type='mmwcc.QuantConv2d'),
    **QUANTIZERS,
)


class Block(nn.Module):
    """A block with a residual, as fx sees it in torchvision's networks."""

    def __init__(self):
        super().__init__()
        self.expand, self.act = nn.Conv2d(8, 16, 1), nn.ReLU6()
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.project = nn.Conv2d(16, 8, 1)

    def forward(self, x):
        return x + self.project(self.act(self.depthwise(self.act(self.expand(x)))))


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        Block(),
        WaveletConv2d(8, 8, 1, dfwt=2),
        SeparableConv2d(8, 8, 3, padding=1),
        nn.Conv2d(8, 2, 1),
    )


def compressed():
    model = network()
    compress_model(model, copy.deepcopy(CONFIG), verbose=False)
    return model


def image():
    return torch.randn(2, 3, 15, 17, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    'convert',
    [lambda model: None, lambda model: to_integer(model, verbose=False)],
    ids=['trained', 'integer'],
)
def test_the_traced_model_computes_the_same(convert):
    model = compressed()
    model(image())
    convert(model.eval())
    traced = torch.fx.symbolic_trace(model)
    with torch.no_grad():
        assert torch.equal(traced(image()), model(image()))


def test_the_traced_model_trains():
    model, traced = compressed(), torch.fx.symbolic_trace(compressed())
    for each in (model, traced):
        each(image()).square().mean().backward()  # calibrates as well
    expected = dict(model.named_parameters())
    assert all(
        torch.equal(parameter.grad, expected[name].grad)
        for name, parameter in traced.named_parameters()
    )


def test_lean_activations_and_fused_blocks():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.Sequential(
            nn.Conv2d(8, 16, 1),
            nn.ReLU6(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16),
            nn.BatchNorm2d(16),
            nn.ReLU6(),
            nn.Conv2d(16, 8, 1),
        ),
        LeanReLU6(),
        nn.Conv2d(8, 2, 1),
    )
    compress_model(model, copy.deepcopy(CONFIG), verbose=False)
    model(image())
    assert fuse_inverted_residuals(model.eval(), verbose=False)[0].fused
    with torch.no_grad():
        assert torch.equal(torch.fx.symbolic_trace(model)(image()), model(image()))


def test_the_layer_itself_is_refused():
    with pytest.raises(
        TypeError,
        match='QuantConv2d: torch.fx can trace a model that contains this layer, got the '
        'layer itself. Put it into torch.nn.Sequential.',
    ):
        torch.fx.symbolic_trace(QuantConv2d(4, 4, 1, **QUANTIZERS))
