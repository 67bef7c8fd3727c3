"""Fusion of inverted residual blocks in models of mmseg and mmdet and in plain ones."""

import pytest
import torch
from torch import nn

from mmwcc.compression import compress_model
from mmwcc.inference import FusedInvertedResidual, fuse_inverted_residuals, to_integer

POINTWISE = dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.25)
QUANTIZERS = dict(
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
)
OTHER = dict(type='mmwcc.QuantConv2d')


def _compressed(block, x, quantized=False):
    """Compress a block, give it statistics, and return it in double precision for evaluation."""
    model = nn.Sequential(block).double().train()
    compression = dict(pointwise=POINTWISE, keep_dense=[])
    compress_model(
        model,
        {**compression, **(dict(other=OTHER, **QUANTIZERS) if quantized else {})},
        verbose=False,
    )
    model(x)
    return model.eval()


def _equal(model, x, fused):
    with torch.no_grad():
        expected = model(x)
        report = fuse_inverted_residuals(model, verbose=False)
        torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)
    assert [(block.fused, block.depthwise) for block in report] == [fused]
    return report


def _input(channels):
    return torch.randn(1, channels, 20, 27, dtype=torch.float64)


@pytest.mark.parametrize('quantized', [False, True])
@pytest.mark.parametrize('out, stride, ratio', [(8, 1, 4), (12, 1, 4), (12, 2, 4), (8, 1, 1)])
def test_block_of_mmseg_equals_the_unfused_one(out, stride, ratio, quantized):
    utils = pytest.importorskip('mmseg.models.utils')
    x = _input(8)
    model = _compressed(utils.InvertedResidual(8, out, stride, ratio), x, quantized)
    _equal(model, x, (True, stride == 1))
    assert isinstance(model[0], FusedInvertedResidual)


@pytest.mark.parametrize('stride, size', [(1, 3), (1, 5), (2, 3)])
def test_block_of_mmdet_equals_the_unfused_one(stride, size):
    layers = pytest.importorskip('mmdet.models.layers')
    x = _input(8)
    model = _compressed(
        layers.InvertedResidual(8, 8, 32, kernel_size=size, stride=stride, drop_path_rate=0.2), x
    )
    _equal(model, x, (True, stride == 1))


def test_blocks_with_squeeze_and_excitation_stay():
    layers = pytest.importorskip('mmdet.models.layers')
    x = _input(8)
    block = layers.InvertedResidual(8, 8, 32, se_cfg=dict(channels=32, ratio=4))
    report = _equal(_compressed(block, x), x, (False, False))
    assert report[0].reason == 'squeeze and excitation between the convolutions'


def _chain(activation=nn.ReLU6):
    return nn.Sequential(
        nn.Conv2d(6, 18, 1, bias=False),
        nn.BatchNorm2d(18),
        activation(),
        nn.Conv2d(18, 18, 3, padding=1, groups=18),
        nn.BatchNorm2d(18),
        activation(),
        nn.Sequential(nn.Conv2d(18, 10, 1), nn.BatchNorm2d(10)),
    )


def test_sequences_of_any_project_are_recognized():
    x = _input(6)
    _equal(_compressed(_chain(), x), x, (True, True))
    report = _equal(_compressed(_chain(nn.SiLU), x), x, (True, False))
    assert report[0].reason == 'SiLU is no clamp'


class InvertedResidual(nn.Module):
    """As in torchvision."""

    def __init__(self, conv):
        super().__init__()
        self.conv, self.use_res_connect = conv, True

    def forward(self, x):
        return x + self.conv(x)


def test_an_activation_before_the_residual_is_not_fused():
    chain = nn.Sequential(*_chain()[:6], nn.Conv2d(18, 6, 1), nn.BatchNorm2d(6), nn.ReLU())
    x = _input(6)
    report = _equal(_compressed(InvertedResidual(chain), x), x, (False, False))
    assert 'between the last convolution and the residual' in report[0].reason


def test_dense_blocks_other_wavelets_and_integer_layers_stay():
    x = _input(6)
    dense = nn.Sequential(_chain()).double().eval()
    assert (
        fuse_inverted_residuals(dense, verbose=False)[0].reason
        == 'no wavelet compressed convolution'
    )
    other = nn.Sequential(_chain()).double()
    pytest.importorskip('pywt')
    compress_model(
        other, dict(pointwise={**POINTWISE, 'wavelet': 'db2'}, keep_dense=[]), verbose=False
    )
    assert "wavelet 'db2'" in fuse_inverted_residuals(other.eval(), verbose=False)[0].reason
    integer = nn.Sequential(InvertedResidual(nn.Sequential(*_chain()[:6], nn.Conv2d(18, 6, 1))))
    compress_model(integer, dict(pointwise=POINTWISE, keep_dense=[], **QUANTIZERS), verbose=False)
    integer.train()(x.float())
    to_integer(integer.eval(), verbose=False)
    report = fuse_inverted_residuals(integer, verbose=False)
    assert not report[0].fused and 'Integer' in report[0].reason


def test_needs_evaluation_mode():
    with pytest.raises(RuntimeError, match='must be in evaluation mode'):
        fuse_inverted_residuals(_chain())
    model = nn.Sequential(_chain())
    compress_model(model, dict(pointwise=POINTWISE, keep_dense=[]), verbose=False)
    model.eval()[0].train()
    assert fuse_inverted_residuals(model, verbose=False)[0].reason.startswith('in training mode')


def test_a_layer_in_training_mode_keeps_its_block_apart_and_its_mode():
    layers = pytest.importorskip('mmdet.models.layers')
    model = _compressed(layers.InvertedResidual(8, 8, 32), _input(8))
    model[0].depthwise_conv.train()
    report = fuse_inverted_residuals(model, verbose=False)
    assert report[0].reason.startswith('in training mode') and model[0].depthwise_conv.training


def test_report_prints_as_a_table(capsys):
    x = _input(6)
    model = _compressed(_chain(), x)
    report = fuse_inverted_residuals(model)
    assert (
        report.summary()
        == '1 inverted residual blocks: 1 fused, 1 of them with the depthwise convolution'
    )
    assert str(report).splitlines()[2].split() == ['0', 'Sequential', 'all']
    assert report.to_dicts()[0]['fused'] is True


@pytest.mark.slow
def test_a_whole_network_agrees_with_the_unfused_one():
    backbones = pytest.importorskip('mmseg.models.backbones')
    model = backbones.MobileNetV2(
        out_indices=(1, 2, 4, 6), strides=(1, 2, 2, 1, 1, 1, 1), dilations=(1, 1, 1, 2, 2, 4, 4)
    ).double()
    model.train()
    compress_model(model, dict(pointwise=POINTWISE, keep_dense=['first']), verbose=False)
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    model(x)
    model.eval()
    with torch.no_grad():
        expected = model(x)
        report = fuse_inverted_residuals(model, verbose=False)
        for got, wanted in zip(model(x), expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-7, atol=1e-7)
    assert len(report) == 17 and all(block.fused for block in report)
    assert sum(block.depthwise for block in report) == 15


def test_a_block_that_was_compressed_by_itself_is_fused():
    """Where several ranks train, the compressed module settles its clips in a forward hook."""
    block = nn.Sequential(
        nn.Conv2d(8, 16, 1),
        nn.BatchNorm2d(16),
        nn.ReLU6(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.BatchNorm2d(16),
        nn.ReLU6(),
        nn.Conv2d(16, 8, 1),
    )
    pointwise = dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5)
    compress_model(
        block,
        dict(pointwise=pointwise, keep_dense=[], act_quant=dict(type='mmwcc.LSQActQuantizer')),
        verbose=False,
    )
    model = nn.Sequential(nn.Conv2d(3, 8, 3), block)
    model(torch.randn(2, 3, 18, 18))
    assert fuse_inverted_residuals(model.eval(), verbose=False)[0].fused
