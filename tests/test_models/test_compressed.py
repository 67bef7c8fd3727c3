"""The factory that switches compression on in a config."""

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import nn

from mmwcc.layers import WaveletCompressedConv2d
from mmwcc.model_tree import LayerState, compressed_layers, quantizers_off
from mmwcc.models import CompressedModel
from mmwcc.presets import compress, preset, quantizer_optim
from mmwcc.registry import MODELS


@MODELS.register_module()
class TwoLayers(nn.Module):
    """A model whose constructor takes what mmseg and mmdet hand to theirs."""

    def __init__(
        self, channels, data_preprocessor=None, train_cfg=None, test_cfg=None, init_cfg=None
    ):
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3)
        self.middle = nn.Conv2d(channels, channels, 1)
        self.last = nn.Conv2d(channels, 2, 1)
        self.train_cfg = train_cfg

    def forward(self, x):
        return self.last(self.middle(self.first(x)))


@MODELS.register_module()
class WithLinear(TwoLayers):
    """A model with a layer that is not compressed."""

    def __init__(self, channels):
        super().__init__(channels)
        self.linear = nn.Linear(2, 3)


def test_the_result_is_an_object_of_the_original_class_with_all_its_arguments():
    model = CompressedModel(
        'mmwcc.TwoLayers', preset('wcc_w8a8_k25'), channels=4, train_cfg=dict(a=1)
    )
    assert type(model) is TwoLayers
    assert model.train_cfg == dict(a=1)
    assert list(compressed_layers(model)) == ['middle']
    assert model.middle.keep_ratio == 0.25


def test_the_log_names_what_was_compressed_once_training_begins(tmp_path):
    logger = MMLogger.get_instance('unhandled', log_file=str(tmp_path / 'train.log'))

    def log():
        for handler in logger.handlers:
            handler.flush()
        return (tmp_path / 'train.log').read_text()

    models = [
        CompressedModel('mmwcc.WithLinear', preset('wcc_w8a8_k25'), channels=4) for _ in range(3)
    ]
    line = 'Compressed WithLinear: 3 convolutions: 1 WaveletCompressedConv2d, 2 dense\n'
    assert log().count(line) == 3 and 'middle' not in log()
    with torch.no_grad():
        models[0](torch.rand(1, 3, 34, 34))
    with quantizers_off(models[1]):
        models[1].eval()(torch.rand(1, 3, 34, 34))
    assert 'middle' not in log()
    for _ in range(2):
        models[2](torch.rand(2, 3, 34, 34))
    assert log().count('Compressed WithLinear:\nlayer ') == log().count('\nmiddle ') == 1
    assert log().count('\nNot handled: 1 Linear (6 weights)\n') == 1
    assert log().count('\nWhat this gains for an input of 1x3x34x34:\n') == 1


def test_the_log_says_at_once_that_nothing_is_compressed(tmp_path):
    logger = MMLogger.get_instance('nothing', log_file=str(tmp_path / 'train.log'))
    with pytest.warns(UserWarning, match='compression must change a layer'):
        CompressedModel('mmwcc.WithLinear', preset('wcc_w8a8_k25', keep_dense=['.*']), channels=4)
    for handler in logger.handlers:
        handler.flush()
    log = (tmp_path / 'train.log').read_text()
    assert 'compress_model: compression must change a layer, got WithLinear' in log


def test_a_compressed_config_cannot_be_compressed_again():
    with pytest.raises(ValueError, match='task_type must be the type of a model'):
        CompressedModel('mmwcc.CompressedModel', preset('wcc_w8a8_k25'), task_type_2='x')


def test_presets_compress_changes_the_type_alone():
    dense = dict(type='EncoderDecoder', backbone=dict(type='ResNet'), train_cfg=dict())
    model = compress(dense, 'wcc_w4a8_k25', rules=[dict(pattern='a', dense=True)])
    assert {
        key: value
        for key, value in model.items()
        if key not in ('type', 'task_type', 'compression')
    } == {'backbone': dict(type='ResNet'), 'train_cfg': {}}
    assert (model['type'], model['task_type']) == ('mmwcc.CompressedModel', 'EncoderDecoder')
    assert model['compression']['weight_quant']['bits'] == 4
    assert model['compression']['rules'] == [dict(pattern='a', dense=True)]
    assert dense['type'] == 'EncoderDecoder'


def test_quantizer_optim_adds_to_paramwise_options():
    paramwise = dict(norm_decay_mult=0.0, custom_keys=dict(head=dict(lr_mult=10.0)))
    given = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1), paramwise_cfg=paramwise)
    changed = quantizer_optim(given)
    assert changed['optimizer'] == dict(
        type='SGD', lr=0.1, weight_decay=0.0
    )  # mmengine wants one to multiply
    options = changed['paramwise_cfg']
    assert options['norm_decay_mult'] == 0.0 and options['custom_keys']['head'] == dict(
        lr_mult=10.0
    )
    assert options['custom_keys']['clip_alpha']['decay_mult'] == 0.0
    assert 'clip_alpha' not in given['paramwise_cfg']['custom_keys']


def test_a_base_and_a_changed_key_make_a_compressed_config(tmp_path):
    (tmp_path / 'dense.py').write_text("model = dict(type='mmwcc.TwoLayers', channels=4)\n")
    (tmp_path / 'compressed.py').write_text("""
_base_ = ['./dense.py', 'mmwcc::_base_/compression/wcc_w8a8_k25.py']
compression = dict(rules=[dict(pattern='middle', keep_ratio=0.75)])
model = dict(type='mmwcc.CompressedModel', task_type=_base_.model.type,
             compression={**_base_.compression, **compression})
""")
    model = MODELS.build(Config.fromfile(tmp_path / 'compressed.py').model)
    assert isinstance(model.middle, WaveletCompressedConv2d) and model.middle.keep_ratio == 0.75


def test_it_builds_in_the_scope_of_the_config(segmentor_config):
    init_default_scope('mmseg')
    from mmseg.models import EncoderDecoder
    from mmseg.registry import MODELS as SEGMENTORS

    model = SEGMENTORS.build(segmentor_config.model)
    assert type(model) is EncoderDecoder
    assert len(compressed_layers(model)) > 20
    assert type(model.decode_head.conv_seg) is nn.Conv2d


PURE_PYTHON = """
from mmengine.config import read_base
with read_base():
    from .dense import *
from mmwcc.layers import QuantConv2d, WaveletCompressedConv2d
from mmwcc.models import CompressedModel, VGG
from mmwcc.quantizers import LearnedClipActQuantizer, LearnedClipWeightQuantizer
model.update(dict(type=CompressedModel, task_type=VGG, compression=dict(
    pointwise=dict(type=WaveletCompressedConv2d, keep_ratio=0.5), other=dict(type=QuantConv2d),
        keep_dense=['first'],
    weight_quant=dict(type=LearnedClipWeightQuantizer, bits=8),
        act_quant=dict(type=LearnedClipActQuantizer, bits=8),
    rules=[dict(pattern='.*1.conv', act_quant=dict(bits=6))])))
"""


def test_a_pure_python_config_of_classes_is_built_dumped_and_built_again(tmp_path):
    dense = 'from mmwcc.models import VGG\nmodel = dict(type=VGG, depth=11, base_channels=4)\n'
    (tmp_path / 'dense.py').write_text(dense)
    (tmp_path / 'compressed.py').write_text(PURE_PYTHON)
    config = Config.fromfile(tmp_path / 'compressed.py')
    config.dump(tmp_path / 'dumped.py')
    built = [
        compressed_layers(MODELS.build(Config.fromfile(tmp_path / name).model))
        for name in ('compressed.py', 'dumped.py')
    ]
    assert [len(layers) for layers in built] == [7, 7]
    for name, layer in built[0].items():
        assert LayerState.of(layer) == LayerState.of(built[1][name])
