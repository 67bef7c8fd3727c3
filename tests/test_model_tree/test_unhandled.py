"""Which learned layers compression does not handle, and models of which it handles nothing."""

import warnings

import pytest
import torch
from torch import nn

from mmwcc.compression import compress_model, separate_convs
from mmwcc.inference import to_integer
from mmwcc.layers import WaveletConv2d
from mmwcc.model_tree import UnhandledLayers
from mmwcc.model_tree.unhandled import listed, unhandled_layers
from mmwcc.presets import preset

WCC = dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5)
FULL = dict(
    pointwise=WCC,
    other=dict(type='mmwcc.QuantConv2d'),
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
)


class OwnKernel(nn.Module):
    """As a deformable convolution: no nn.Conv2d, but a kernel."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 3, 3, 3))


class Tokens(nn.Module):
    """Learned values that are added to others."""

    def __init__(self):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 4, 8))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
        self.counts = nn.Parameter(torch.zeros(2, 2, dtype=torch.int64), requires_grad=False)


def everything():
    linear = nn.Linear(8, 4)
    return nn.ModuleDict(
        dict(
            conv=nn.Conv2d(3, 8, 1),
            wavelet=WaveletConv2d(4, 8, 3, kappa=2),
            linear=linear,
            again=linear,
            other=nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)),
            up=nn.ConvTranspose2d(8, 4, 2),
            line=nn.Conv1d(2, 3, 5),
            volume=nn.Conv3d(1, 2, 2),
            attention=nn.MultiheadAttention(8, 2),
            own=OwnKernel(),
            tokens=Tokens(),
            table=nn.Embedding(5, 8),
            norm=nn.LayerNorm((4, 8)),
            batch=nn.BatchNorm2d(8),
            prelu=nn.PReLU(4),
            lazy=nn.LazyLinear(3),
        )
    )


def test_layers_are_counted_by_class_once_each():
    found = {
        layers.kind: (layers.count, layers.weights) for layers in unhandled_layers(everything())
    }
    assert found == dict(
        Linear=(3, 32 + 2 + 8 + 64),  # one is the projection of the attention
        ConvTranspose2d=(1, 128),
        Conv1d=(1, 30),
        Conv3d=(1, 16),
        MultiheadAttention=(1, 192),
        OwnKernel=(1, 54),
    )


def test_compressed_and_converted_layers_are_handled():
    model = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(4)))
    compress_model(model, FULL, verbose=False)
    model(torch.randn(1, 3, 16, 16))
    assert unhandled_layers(model) == []
    to_integer(model.eval(), verbose=False)
    assert unhandled_layers(model) == []


def test_the_report_names_them_and_the_summary_stays():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1), nn.Linear(2, 3), nn.Linear(3, 9)
    )
    report = compress_model(model, dict(pointwise=WCC), verbose=False)
    assert report.unhandled == [UnhandledLayers('Linear', 2, 33)]
    assert str(report).splitlines()[-2:] == ['Not handled: 2 Linear (33 weights)', report.summary()]
    assert report.summary() == '3 convolutions: 1 WaveletCompressedConv2d, 2 dense'
    assert listed([*report.unhandled, UnhandledLayers('Conv1d', 1, 4096)]) == (
        '2 Linear (33 weights), 1 Conv1d (4,096 weights)'
    )


def test_they_survive_the_change_to_integers():
    model = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(4)), nn.Linear(2, 2))
    report = compress_model(model, dict(FULL, integer=True), verbose=False)
    assert report.summary() == '4 convolutions: 2 IntegerWaveletCompressedConv2d, 2 dense'
    assert report.unhandled == [UnhandledLayers('Linear', 1, 4)]


@pytest.mark.parametrize('convert', [lambda model: compress_model(model, FULL), separate_convs])
def test_a_model_without_convolutions_is_told_what_it_has(convert):
    message = r'got Sequential with none but 36 Linear \(144 weights\). Other layers are not compr'
    with pytest.raises(ValueError, match=message):
        convert(nn.Sequential(*(nn.Linear(2, 2) for _ in range(36))))
    with pytest.raises(ValueError, match='got Sequential with none inside'):
        convert(nn.Sequential(nn.ReLU()))


def transformer():
    """As Segmenter: one convolution, which is the first and the last, and linear layers."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, stride=4), nn.Flatten(2), nn.Linear(16, 8), nn.Linear(8, 2)
    )


def spatial():
    return nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))


NOTHING = 'no pointwise, other or rule compresses it'


@pytest.mark.parametrize(
    'build, compression, message',
    [
        (
            transformer,
            FULL,
            r"Sequential with all convolutions left dense \(1 x keep_dense 'last'\) and with "
            r'layers that '
            r'are not compressed: 2 Linear \(144 weights\)\. Let pointwise, other, linear or a ',
        ),
        (
            spatial,
            preset('wcc_fp_k25'),
            rf"\(1 x keep_dense 'first', 2 x {NOTHING}, 1 x keep_dense 'last'\)\. Let pointwise",
        ),
        (spatial, dict(FULL, pointwise=None, other=None), f'2 x {NOTHING}'),
        (spatial, dict(keep_dense=[]), f'4 x {NOTHING}'),
        (
            spatial,
            dict(pointwise=WCC, rules=[dict(pattern='.*', keep_ratio=0.25)]),
            f'2 x {NOTHING}',
        ),
        (
            lambda: nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(3, 3, 1))),
            dict(FULL, keep_dense=[]),
            '1 x its weight is computed',
        ),
    ],
)
def test_nothing_compressed_is_an_error(build, compression, message):
    with pytest.raises(ValueError, match=f'compression must change a layer, got .*{message}'):
        compress_model(build(), compression, verbose=False)


@pytest.mark.parametrize(
    'changes, reason',
    [
        (dict(keep_dense=['.*']), "4 x keep_dense '.*'"),
        (dict(keep_dense=['0', 'last', '[12]']), "2 x keep_dense '[12]'"),
        (dict(rules=[dict(pattern='.*', dense=True)]), '2 x rule'),
        (dict(rules=[dict(pattern='.*', weight_quant=None, act_quant=None)]), '2 x rule'),
    ],
)
def test_nothing_compressed_by_the_wish_of_the_user_is_a_warning(changes, reason):
    with pytest.warns(UserWarning, match='compression must change a layer') as caught:
        report = compress_model(spatial(), {**FULL, **changes}, verbose=False)
    assert reason in str(caught[0].message) == report.warning and caught[0].filename == __file__
    assert str(report).splitlines()[-2:] == [report.warning, '4 convolutions: 4 dense']


def test_only_if_faster_may_leave_all_dense():
    model = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(3)))
    with pytest.warns(UserWarning, match='1 x WCC would run x0.* as fast at 8x8'):
        compress_model(
            model, dict(pointwise=WCC, only_if_faster=dict(input_shape=(8, 8))), verbose=False
        )


def test_what_was_converted_before_counts():
    model = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(3)))
    compress_model(model, FULL, verbose=False)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        report = compress_model(model, FULL, verbose=False)
        assert report[1].reason == 'compressed already' and not report.warning
        model.train()(torch.randn(1, 3, 16, 16))
        to_integer(model.eval(), verbose=False)
        assert compress_model(model, FULL, verbose=False).summary() == '2 convolutions: 2 dense'
        report = compress_model(spatial(), dict(separate=dict()), verbose=False)
    assert report.summary() == '6 convolutions: 6 dense'
