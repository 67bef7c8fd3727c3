"""``conv_cfg=dict(type='mmwcc.WCC', ...)``: OpenMMLab hands it to stems, depthwise and point-wise
layers alike.
"""

import pytest
import torch
from torch import nn

from mmwcc.layers import WCC, QuantConv2d, WaveletCompressedConv2d

bricks = pytest.importorskip('mmcv.cnn')

COMPRESSION = dict(type='mmwcc.WCC', keep_ratio=0.5, levels=2, wavelet='haar', selection='coarse')
QUANTIZERS = dict(
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=4),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
)
STEM = dict(in_channels=3, out_channels=8, kernel_size=3, stride=2, padding=1)
DEPTHWISE = dict(in_channels=8, out_channels=8, kernel_size=3, padding=1, groups=8)
POINTWISE = dict(in_channels=8, out_channels=16, kernel_size=1)


@pytest.mark.parametrize(
    'geometry, quantized, expected',
    [
        (STEM, False, nn.Conv2d),
        (STEM, True, QuantConv2d),
        (DEPTHWISE, False, nn.Conv2d),
        (DEPTHWISE, True, QuantConv2d),
        (POINTWISE, False, WaveletCompressedConv2d),
        (POINTWISE, True, WaveletCompressedConv2d),
        (POINTWISE | dict(groups=2), False, nn.Conv2d),
        (POINTWISE | dict(padding=1), True, QuantConv2d),
    ],
)
@pytest.mark.parametrize('norm_cfg', [None, dict(type='BN')])
def test_conv_module(geometry, quantized, expected, norm_cfg):
    conv_cfg = COMPRESSION | (QUANTIZERS if quantized else {})
    module = bricks.ConvModule(**geometry, conv_cfg=conv_cfg, norm_cfg=norm_cfg)
    dense = bricks.ConvModule(**geometry, norm_cfg=norm_cfg)
    x = torch.randn(2, geometry['in_channels'], 16, 12, requires_grad=True)
    y = module(x)
    y.sum().backward()
    assert type(module.conv) is expected
    assert y.shape == dense(x).shape
    assert (module.conv.bias is None) == (dense.conv.bias is None)
    assert module.conv.weight.grad is not None
    assert all(key in module.state_dict() for key in dense.state_dict())


@pytest.mark.parametrize('geometry', [STEM, DEPTHWISE, POINTWISE])
def test_build_conv_layer(geometry):
    layer = bricks.build_conv_layer(COMPRESSION | QUANTIZERS, *geometry.values())
    dense = nn.Conv2d(*geometry.values())
    x = torch.randn(2, geometry['in_channels'], 16, 12)
    assert layer(x).shape == dense(x).shape


def test_arguments_reach_the_layer():
    layer = bricks.build_conv_layer(COMPRESSION | QUANTIZERS, 8, 16, 1, stride=2, bias=False)
    assert (layer.keep_ratio, layer.levels, layer.wavelet, layer.selection) == (
        0.5,
        2,
        'haar',
        'coarse',
    )
    assert (layer.weight_quant.bits, layer.act_quant.bits) == (4, 8)
    assert layer.stride == (2, 2)
    assert layer.bias is None


def test_an_unknown_argument_is_refused():
    with pytest.raises(TypeError, match='keep_ratoi'):
        WCC(8, 16, 1, keep_ratoi=0.5)


def test_each_layer_gets_quantizers_of_its_own():
    first, second = (bricks.build_conv_layer(COMPRESSION | QUANTIZERS, 8, 16, 1) for _ in range(2))
    assert first.act_quant is not second.act_quant
