"""WaveletNet and WaveletNetCifar: published counts, MobileNetV2's corner, the arguments of
backbones, compression.
"""

import copy
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip('mmcv', reason='backbones need mmcv')

from mmwcc.compression import compress_model  # noqa: E402
from mmwcc.diagnostics import adjacency
from mmwcc.layers import QuantConv2d, WaveletCompressedConv2d, WaveletConv2d  # noqa: E402
from mmwcc.model_tree.compressed import compressed_layers  # noqa: E402
from mmwcc.models import WaveletNet, WaveletNetCifar  # noqa: E402
from mmwcc.models.waveletnet.unit import WaveletUnit  # noqa: E402
from mmwcc.registry import MODELS  # noqa: E402


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def wavelet_convs(model: nn.Module) -> list[WaveletConv2d]:
    return [module for module in model.modules() if isinstance(module, WaveletConv2d)]


def of_layout(widen_factor: float = 1.0, kappa: tuple[int, int, int] = (0, 3, 3)) -> int:
    """Count the parameters of WaveletNet from its description alone: BN's scales and shifts,
    classifier weights.
    """

    def width(channels: int) -> int:
        nearest = max(8, int(channels * widen_factor + 4) // 8 * 8)
        return nearest if nearest >= 0.9 * channels * widen_factor else nearest + 8

    def wconv(ins: int, outs: int, depth: int) -> int:
        while depth and (ins % 2**depth or outs % 2**depth):
            depth -= 1
        weights = ins * outs * (depth + 3) // 2 ** (depth + 2) if depth else ins * outs
        return weights + 2 * outs

    before = width(32)
    total = 27 * before + 2 * before
    for channels, units, expansion in (
        (16, 1, 1),
        (24, 2, 6),
        (32, 3, 6),
        (64, 4, 6),
        (96, 3, 6),
        (160, 3, 6),
        (320, 1, 6),
    ):
        for _ in range(units):
            middle = expansion * before
            total += wconv(before, middle, kappa[0]) if expansion > 1 else 0
            total += 9 * middle + 2 * middle + wconv(middle, width(channels), kappa[2])
            before = width(channels)
    return total + before * width(1280) + 2 * width(1280) + 1000 * width(1280)


@pytest.mark.parametrize(
    'widen_factor, kappa, parameters',
    [
        (1.0, (0, 3, 3), 2_721_272),  # published: 2.72 M
        (0.75, (0, 3, 3), 1_794_944),
        (1.25, (0, 3, 3), 3_824_620),
        (1.0, (0, 5, 5), 2_601_832),
        (1.0, (3, 3, 3), None),
        (0.5, (2, 3, 3), None),
        (1.0, (0, 0, 0), 3_504_872 - 1000),
    ],
)  # MobileNetV2 with its classifier's bias, as torchvision counts it
def test_parameters(widen_factor, kappa, parameters):
    net = WaveletNet(widen_factor=widen_factor, kappa=kappa)
    total = count(net) + 1000 * net.conv2.out_channels
    assert total == of_layout(widen_factor, kappa) == (parameters or total)


def test_parameters_on_cifar():
    net = WaveletNetCifar(depth=24)
    assert count(net) + 64 * 10 + 10 == 1_105_786  # published: 1.10 M
    assert sum(isinstance(m, nn.Conv2d) and m.groups > 1 for m in net.modules()) == 72
    assert count(WaveletNetCifar(depth=24, kappa=(0, 0, 3))) == count(net), (
        'the transform has no parameters'
    )


def test_multiplications():
    net = WaveletNet().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.rand(1, 3, 224, 224))
    assert counter.get_total_flops() // 2 + 1280 * 1000 == 204_806_400


def test_depths_are_lowered_together():
    deepest = {
        (conv.in_channels, conv.out_channels): (conv.kappa, conv.dfwt.kappa)
        for conv in wavelet_convs(WaveletNet(kappa=(0, 5, 5)))
    }
    assert (
        deepest[(32, 16)] == (4, 4)
        and deepest[(96, 24)] == (3, 3)
        and deepest[(960, 320)] == (5, 5)
    )
    assert {(conv.kappa, conv.dfwt.kappa) for conv in wavelet_convs(WaveletNet())} == {(3, 3)}
    assert all(
        conv.dfwt is None for conv in wavelet_convs(WaveletNetCifar(depth=1, kappa=(0, 0, 3)))
    )


def test_depths_of_stages():
    kappa = [(0, 0, 0)] * 3 + [(1, 2, 3)] * 4
    net = WaveletNet(kappa=kappa)
    assert not wavelet_convs(net.layer3) and type(net.layer3[1].conv[2].conv) is nn.Conv2d
    assert [
        (conv.kappa, conv.dfwt.kappa if conv.dfwt else 0) for conv in wavelet_convs(net.layer5[1])
    ] == [(1, 0), (3, 2)]


@pytest.mark.filterwarnings('ignore:torch.utils.checkpoint:UserWarning')  # of mmseg's
@pytest.mark.parametrize(
    'settings',
    [
        dict(),
        dict(
            widen_factor=0.5,
            strides=(1, 2, 2, 2, 1, 1, 1),
            dilations=(1, 1, 1, 1, 1, 2, 2),
            with_cp=True,
        ),
    ],
)
def test_without_wavelets_it_is_mobilenet_v2(settings):
    mobilenet = pytest.importorskip('mmseg.models', exc_type=ImportError).MobileNetV2(**settings)
    net = WaveletNet(kappa=(0, 0, 0), out_indices=(1, 2, 4, 6), **settings)
    mobilenet.init_weights()
    for name, value in mobilenet.state_dict().items():
        if name.endswith('running_mean'):
            value.normal_()
    result = net.load_state_dict(mobilenet.state_dict())
    assert not result.missing_keys and not result.unexpected_keys
    x = torch.randn(2, 3, 64, 96, requires_grad=True)
    for training in (False, True):
        mobilenet.train(training)
        net.train(training)
        ours, theirs = net(x), mobilenet(x)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)) and len(ours) == 4
        for outputs in (ours, theirs):
            sum(y.square().mean() for y in outputs).backward()
        assert all(
            torch.equal(a.grad, b.grad)
            for a, b in zip(net.parameters(), mobilenet.parameters(), strict=True)
        )


@pytest.mark.parametrize(
    'kappa, full', [((0, 3, 3), True), ((0, 0, 3), True), ((3, 3, 3), True), ((3, 0, 3), False)]
)
def test_connectivity_of_a_unit(kappa, full):
    """A dense expansion joins channels by itself; a divided one needs the transform."""
    assert bool(adjacency(WaveletUnit(16, 24, 1, 6, kappa), 16).all()) == full


def test_outputs():
    net = WaveletNet(widen_factor=0.5, out_indices=range(8)).eval()
    shapes = [tuple(y.shape) for y in net(torch.randn(1, 3, 65, 97))]
    assert [shape[1] for shape in shapes] == [8, 16, 16, 32, 48, 80, 160, 640]
    assert [shape[2:] for shape in shapes] == [
        (33, 49),
        (17, 25),
        (9, 13),
        (5, 7),
        (5, 7),
        (3, 4),
        (3, 4),
        (3, 4),
    ]
    assert not hasattr(WaveletNet(widen_factor=0.5, out_indices=(1, 6)), 'conv2')
    assert [
        tuple(y.shape[1:])
        for y in WaveletNetCifar(depth=2, out_indices=(0, 1, 2))(torch.randn(1, 3, 32, 32))
    ] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


@pytest.mark.parametrize(
    'make',
    [
        lambda **kwargs: WaveletNet(widen_factor=0.25, **kwargs),
        lambda **kwargs: WaveletNetCifar(depth=1, widths=(8, 8, 16), **kwargs),
    ],
)
def test_training_and_freezing(make):
    net = make(frozen_stages=1, norm_eval=True, with_cp=True)
    net.init_weights()
    net.train()
    assert not any(m.training for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    sum(y.mean() for y in net(torch.randn(2, 3, 32, 32))).backward()
    for name, parameter in net.named_parameters():
        frozen = name.startswith(('conv1.', 'layer1.'))
        assert parameter.requires_grad != frozen
        assert (parameter.grad is None) == frozen, name
    assert not net.layer1.training and net.layer2.training
    assert make().train().layer1[0].conv[0].bn.training


def test_recomputing_gives_the_same_gradients():
    nets = [WaveletNetCifar(depth=1, with_cp=with_cp) for with_cp in (False, True)]
    nets[1].load_state_dict(nets[0].state_dict())
    x = torch.randn(2, 3, 32, 32, requires_grad=True)
    grads = [torch.autograd.grad(net(x)[0].square().sum(), [x, *net.parameters()]) for net in nets]
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


def test_initialization_reaches_the_pieces():
    net = WaveletNet(widen_factor=0.25)
    before = copy.deepcopy(net.layer4[0].conv[2].conv.pieces[3].weight)
    net.init_weights()
    after = net.layer4[0].conv[2].conv.pieces[3].weight
    assert not torch.equal(before, after)
    assert after.std().item() == pytest.approx(
        (2 / after.shape[0]) ** 0.5, rel=0.3
    )  # He's, over the outputs


def test_norm_and_activation():
    net = WaveletNet(
        widen_factor=0.25, norm_cfg=dict(type='GN', num_groups=2), act_cfg=dict(type='HSwish')
    )
    kinds = {type(module).__name__ for module in net.modules()}
    assert 'GroupNorm' in kinds and 'Hardswish' in kinds and not {'BatchNorm2d', 'ReLU6'} & kinds


@pytest.mark.parametrize(
    'cls, arguments, message',
    [
        (
            WaveletNet,
            dict(kappa=(3, 3)),
            r'kappa must be three whole numbers .* or 7 such triples, got \(3, 3\)',
        ),
        (WaveletNet, dict(kappa=(0, -1, 3)), 'kappa must be three whole numbers of at least 0'),
        (
            WaveletNetCifar,
            dict(kappa=[(0, 3, 3)] * 7),
            'kappa must be three whole numbers .* or 3 such triples',
        ),
        (
            WaveletNet,
            dict(out_indices=(8,)),
            r'out_indices must name outputs from 0 to 7, got \(8,\). Use \(7,\)',
        ),
        (WaveletNetCifar, dict(out_indices=()), 'out_indices must name outputs from 0 to 2'),
        (WaveletNet, dict(frozen_stages=8), r'frozen_stages must be from -1 \(none\) to 7, got 8'),
        (
            WaveletNet,
            dict(strides=(1, 2)),
            r'strides must have one entry for each of the 7 stages, got \(1, 2\)',
        ),
        (
            WaveletNet,
            dict(dilations=(1, 2)),
            'dilations must have one entry for each of the 7 stages',
        ),
        (
            WaveletNet,
            dict(pretrained='a.pth', init_cfg=dict(type='Xavier')),
            'init_cfg must be None where pretrained',
        ),
        (WaveletNetCifar, dict(depth=0), 'depth must be a whole number of at least 1, got 0'),
        (
            WaveletNetCifar,
            dict(widths=(8, 16)),
            r'widths must have one entry for each of the 3 stages, got \(8, 16\)',
        ),
        (
            WaveletNetCifar,
            dict(strides=(1,)),
            'strides must have one entry for each of the 3 stages',
        ),
    ],
)
def test_bad_arguments(cls, arguments, message):
    with pytest.raises(ValueError, match=f'{cls.__name__}: {message}'):
        cls(**arguments)


QUANTIZERS = dict(
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
)
WCC = dict(
    pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5),
    other=dict(type='mmwcc.QuantConv2d'),
)


def test_compression_reaches_every_piece():
    net = WaveletNet(widen_factor=0.5, kappa=(3, 3, 3), out_indices=(6,))
    keys = set(net.state_dict())
    report = compress_model(net, {**WCC, **QUANTIZERS}, verbose=False)
    convs = {name: module for name, module in net.named_modules() if isinstance(module, nn.Conv2d)}
    last = {f'layer7.0.conv.2.conv.pieces.{i}' for i in range(4)}
    for name, module in convs.items():
        if name == 'conv1.conv' or name in last:
            assert type(module) is nn.Conv2d, (
                name
            )  # the first convolution, and all pieces of the last one
        else:
            assert type(module) is (
                WaveletCompressedConv2d if module.kernel_size == (1, 1) else QuantConv2d
            ), name
    # 16 expansions and 16 projections of 4 pieces (the last projection stays), 17 depthwise
    # convolutions.
    assert (
        report.summary() == '150 convolutions: 17 QuantConv2d, 128 WaveletCompressedConv2d, 5 dense'
    )
    assert keys <= set(net.state_dict())
    net.train()(torch.randn(2, 3, 64, 64))[0].sum().backward()
    for name, layer in compressed_layers(net).items():
        assert layer.act_quant.initialized and layer.act_quant.clip_alpha.grad is not None, name
        assert layer.weight.grad is not None


def test_keeping_all_coefficients_changes_nothing():
    net = WaveletNet(widen_factor=0.25).eval()
    x = torch.randn(1, 3, 64, 64)
    expected = net(x)[0]
    compress_model(
        net, dict(pointwise=dict(WCC['pointwise'], keep_ratio=1.0), keep_dense=[]), verbose=False
    )
    assert len(compressed_layers(net)) == 16 + 17 * 4 + 1
    torch.testing.assert_close(net(x)[0], expected, rtol=1e-4, atol=1e-4)


def test_it_is_registered():
    net = MODELS.build(dict(type='mmwcc.WaveletNet', widen_factor=0.25, out_indices=(1, 2, 4, 6)))
    assert len(net(torch.randn(2, 3, 32, 32))) == 4


README = Path(__file__).parents[2] / 'configs' / 'waveletnet' / 'README.md'


@pytest.mark.parametrize('library', ['mmseg', 'mmdet'])
def test_two_lines_of_config_change_the_backbone(library, tmp_path):
    """The configs that the README shows."""
    pytest.importorskip(f'{library}.models', exc_type=ImportError)
    from mmengine.config import Config
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import MODELS as ROOT_MODELS
    from mmengine.registry import init_default_scope

    (shown,) = (
        text
        for text in re.findall(r'```python\n(.*?)```', README.read_text(), re.DOTALL)
        if library in text
    )
    (tmp_path / 'config.py').write_text(shown)
    cfg = Config.fromfile(tmp_path / 'config.py')
    init_default_scope(cfg.default_scope)
    model = revert_sync_batchnorm(ROOT_MODELS.build(cfg.model)).eval()
    assert type(model.backbone) is WaveletNet and len(wavelet_convs(model)) == 17
    with torch.no_grad():
        outputs = model(torch.randn(1, 3, 64, 64), mode='tensor')
    outputs = [outputs] if torch.is_tensor(outputs) else outputs[0]
    assert outputs[0].shape == ((1, 19, 8, 8) if library == 'mmseg' else (1, 9 * 80, 8, 8))


def test_any_network_by_conv_cfg():
    models = pytest.importorskip('mmdet.models', exc_type=ImportError)
    dense = models.ResNet(18)
    net = models.ResNet(18, conv_cfg=dict(type='mmwcc.WConv', kappa=3, dfwt=3, lower=True))
    net.init_weights()
    assert type(net.conv1) is nn.Conv2d, 'three channels cannot be divided'
    assert len(wavelet_convs(net)) == 19
    # 3/16 of the weights of every other convolution remain.
    weights = (
        sum(m.weight.numel() for m in dense.modules() if isinstance(m, nn.Conv2d))
        - dense.conv1.weight.numel()
    )
    assert count(dense) - count(net) == weights * 13 // 16
    net.train()
    sum(y.mean() for y in net(torch.randn(2, 3, 64, 64))).backward()
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)
