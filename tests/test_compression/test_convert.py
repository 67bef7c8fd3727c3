"""Conversion of any module in place."""

import copy
import pickle

import pytest
import torch
from torch import nn

from mmwcc.compression import compress_model, convert
from mmwcc.diagnostics import dense_twin
from mmwcc.inference.integer_forms import integer_obstacle
from mmwcc.layers import QuantConv2d, WaveletCompressedConv2d, WaveletConv2d
from mmwcc.model_tree.compressed import compressed_layers

WCC = dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5)
FULL = dict(
    pointwise=WCC,
    other=dict(type='mmwcc.QuantConv2d'),
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
)


class Net(nn.Module):
    """A stem, a block, a shared 1x1 convolution and a segmentation head in OpenMMLab's names."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.block = nn.Sequential(
            nn.Conv2d(8, 16, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.Conv2d(16, 16, 3, padding=1, groups=16),
            nn.Conv2d(16, 8, 1, stride=2),
        )
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.decode_head = nn.ModuleDict(
            dict(conv_seg=nn.Conv2d(8, 4, 1), hidden=nn.Conv2d(8, 8, 1))
        )
        self.again = self.decode_head['hidden']

    def forward(self, x):
        x = self.up(self.block(self.stem(x)))
        return self.decode_head['conv_seg'](self.again(self.decode_head['hidden'](x)))


def compress(model, verbose=False, **changes):
    return compress_model(model, {**FULL, **changes}, verbose=verbose)


def test_each_layer_becomes_what_the_dictionary_says():
    model = Net()
    report = compress(model)
    after = {layer.name: layer.after for layer in report}
    assert after == {
        'stem': 'dense',
        'block.0': 'WaveletCompressedConv2d',
        'block.2': 'QuantConv2d',
        'block.3': 'WaveletCompressedConv2d',
        'decode_head.conv_seg': 'dense',
        'decode_head.hidden': 'WaveletCompressedConv2d',
        'again': 'WaveletCompressedConv2d',
    }
    assert type(model.block[0]) is WaveletCompressedConv2d and type(model.block[2]) is QuantConv2d
    assert type(model.up) is nn.ConvTranspose2d
    assert report.summary() == '7 convolutions: 1 QuantConv2d, 4 WaveletCompressedConv2d, 2 dense'


def test_parameters_are_the_same_objects_and_geometry_is_kept():
    model = Net()
    before = dict(model.named_parameters())
    compress(model)
    after = dict(model.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())
    assert all(name.endswith('clip_alpha') for name in after.keys() - before.keys())
    assert (
        model.block[3].stride == (2, 2)
        and model.block[2].groups == 16
        and model.block[0].bias is None
    )


def test_conversion_draws_no_random_numbers():
    model = Net()
    state = torch.get_rng_state()
    compress(model)
    assert torch.equal(torch.get_rng_state(), state)


def test_shared_convolutions_stay_shared():
    model = Net()
    compress(model)
    assert model.again is model.decode_head['hidden']


def test_keep_ratio_one_without_quantizers_changes_nothing():
    model, x = Net().eval(), torch.randn(2, 3, 32, 24)
    expected = model(x)
    compress(model, pointwise=dict(WCC, keep_ratio=1.0), weight_quant=None, act_quant=None)
    assert len(compressed_layers(model)) == 3
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)


def test_training_mode_and_dtype_are_kept():
    model = Net().eval().double()
    compress(model)
    layer = model.block[0]
    assert (
        not layer.training and not layer.act_quant.training and layer.weight.dtype == torch.float64
    )


def test_last_is_the_last_convolution_where_there_is_no_head():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1))
    assert [layer.after for layer in compress(model)] == [
        'dense',
        'WaveletCompressedConv2d',
        'dense',
    ]


def test_keep_dense_takes_names_and_regular_expressions():
    model = Net()
    report = compress(model, keep_dense=['block.0', r'.*\.hidden', 'again'])
    assert {layer.name for layer in report if layer.after == 'dense'} == {
        'block.0',
        'decode_head.hidden',
        'again',
    }


def test_convolutions_with_a_forward_of_their_own_stay():

    class Doubling(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    model = nn.Sequential(nn.Conv2d(3, 4, 1), Doubling(4, 4, 1), nn.Conv2d(4, 4, 1))
    report = compress(model, keep_dense=[])
    assert report[1].after == 'dense' and 'Doubling has a forward of its own' in report[1].reason


def test_compressing_twice_changes_nothing_more():
    model = Net()
    compress(model)
    layer = model.block[0]
    report = compress(model, pointwise=dict(WCC, keep_ratio=0.25))
    assert model.block[0] is layer and layer.keep_ratio == 0.5
    assert report[1].reason == 'compressed already'


def test_the_report_is_printed_as_a_table(monkeypatch):
    printed = []
    monkeypatch.setattr(convert, 'announce', printed.append)
    report = compress(Net(), verbose=True)
    assert printed == [f'Compressed Net:\n{report}']
    line = next(line for line in printed[0].splitlines() if line.startswith('block.0'))
    assert line.split() == [
        'block.0',
        'Conv2d',
        '1x1',
        'WaveletCompressedConv2d',
        '8',
        '8',
        '0.5',
        '128',
    ]
    assert report.to_dicts()[1]['keep_ratio'] == 0.5


def test_a_compressed_model_copies_and_pickles():
    model = Net()
    compress(model)
    model(torch.randn(1, 3, 16, 16))
    x = torch.randn(1, 3, 16, 16)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin.eval()(x), model.eval()(x))


def test_a_dense_checkpoint_lacks_only_the_quantizers():
    dense, model = Net(), Net()
    compress(model)
    result = model.load_state_dict(dense.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert {key.rsplit('.', 1)[1] for key in result.missing_keys} == {
        'clip_alpha',
        'initialized',
        'signed',
    }


@pytest.mark.parametrize(
    'changes, message',
    [
        (
            dict(rules=[dict(pattern='blok', keep_ratio=0.5)]),
            r"rule 'blok' matches no convolution.*Did you mean r'block\\\.\.\*'",
        ),
        (
            dict(rules=[dict(pattern='block', keep_ratio=0.5)]),
            r"rule 'block' matches no convolution.*Did you mean r'block\\\.\.\*'",
        ),
        (
            dict(rules=[dict(pattern='blok.3', keep_ratio=0.5)]),
            r"Did you mean r'block\\\.3'. It can match: block.0, block.2, block.3, decode_head.hid",
        ),
        (
            dict(keep_dense=['neck']),
            "keep_dense entry 'neck' matches no convolution.*It can match: stem",
        ),
        (
            dict(
                rules=[
                    dict(pattern=r'block\.2', type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5)
                ]
            ),
            'block.2 .Conv2d 3x3 g16. cannot become mmwcc.WaveletCompressedConv2d: .*kernel_size '
            'must be 1',
        ),
        (dict(rules=[dict(pattern=r'block\.0', type='mmwcc.WCC')]), "cannot become 'mmwcc.WCC'"),
        (
            dict(pointwise=dict(WCC, keep_ratio=2)),
            r'block.0 .Conv2d 1x1. cannot become .*keep_ratio must be in \(0, 1\]',
        ),
        (
            dict(act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=1)),
            'bits must be in 2 ... 16',
        ),
    ],
)
def test_bad_dictionaries_name_the_layer_and_the_remedy(changes, message):
    with pytest.raises(ValueError, match=message):
        compress(Net(), **changes)


def test_a_suggestion_names_no_layer_that_stays_dense():
    with pytest.raises(ValueError, match="rule 'sten' matches no") as error:
        compress(Net(), rules=[dict(pattern='sten', keep_ratio=0.5)])
    assert 'stem' not in str(error.value)


def test_a_config_in_place_of_a_model_is_refused():
    with pytest.raises(TypeError, match='must be a torch.nn.Module, got dict. Build the model'):
        compress(dict(type='Net'))


def test_a_quantizer_says_where_it_is():
    model = Net().eval()
    compress(model, weight_quant=None)
    with pytest.raises(
        RuntimeError, match='LearnedClipActQuantizer of block.0.act_quant was evaluated before'
    ):
        model(torch.rand(1, 3, 16, 16))


def test_a_model_without_convolutions_is_refused():
    with pytest.raises(ValueError, match='must contain convolutions'):
        compress(nn.Linear(3, 3))


def test_a_single_convolution_is_refused_because_it_cannot_be_replaced_in_place():
    with pytest.raises(ValueError, match='Put a single layer into nn.Sequential'):
        compress(nn.Conv2d(3, 3, 1))


def test_a_wavelet_convolution_is_the_first_or_the_last_as_a_whole():
    model = nn.ModuleDict(
        dict(
            stem=WaveletConv2d(4, 8, 3, kappa=2),
            body=WaveletConv2d(8, 8, 1, kappa=1, dfwt=1),
            bbox_head=nn.ModuleDict(
                dict(retina_cls=WaveletConv2d(8, 8, 3, kappa=1), hidden=WaveletConv2d(8, 8, 1))
            ),
        )
    )
    after = {layer.name: layer.after for layer in compress(model)}
    assert {name for name, kind in after.items() if kind == 'dense'} == {
        'stem.pieces.0',
        'stem.pieces.1',
        'stem.pieces.2',
        'bbox_head.retina_cls.pieces.0',
        'bbox_head.retina_cls.pieces.1',
    }
    assert set(after.values()) == {'dense', 'WaveletCompressedConv2d'}
    assert type(model['body'].pieces[1]) is WaveletCompressedConv2d
    assert model['body'](torch.randn(1, 8, 4, 4)).shape == (1, 8, 4, 4)


class RoundedConv2d(QuantConv2d):
    """A compressed layer of a user's own."""


def test_a_compressed_layer_of_ones_own_is_one_everywhere():
    model = Net()
    report = compress(model, other=dict(type=RoundedConv2d))
    assert (
        type(model.block[2]) is RoundedConv2d
        and model.block[2] in compressed_layers(model).values()
    )
    assert {layer.name: layer.after for layer in report}['block.2'] == 'RoundedConv2d'
    assert compress(model)[2].reason == 'compressed already'
    assert type(dense_twin(model).block[2]) is nn.Conv2d
    # What has a form for inference is narrower: a subclass may compute something else.
    assert integer_obstacle(RoundedConv2d(4, 4, 1)) == 'not a quantized convolution'


def test_a_misspelt_layer_type_is_named_even_where_nothing_else_is_compressed():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1))
    pointwise = dict(type='mmwcc.WaveletCompresedConv2d', keep_ratio=0.25)
    with pytest.raises(ValueError, match="Did you mean 'mmwcc.WaveletCompressedConv2d'"):
        compress_model(model, dict(pointwise=pointwise), verbose=False)
