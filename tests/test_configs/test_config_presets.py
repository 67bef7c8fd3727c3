"""The presets of configs/_base_/compression, as bases and through mmwcc.presets."""
import re

import pytest
from fabricated import CONFIGS
from mmengine.config import Config

import mmwcc.presets
from mmwcc.presets import compress, preset, preset_names

FOLDER = CONFIGS / '_base_' / 'compression'
NAMES = sorted(path.stem for path in FOLDER.glob('*.py'))
DENSE = """
model = dict(type='EncoderDecoder', backbone=dict(type='MobileNetV2', out_indices=(1, 2)), test_cfg=dict(mode='whole'))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, weight_decay=1e-4), clip_grad=None)
"""


@pytest.fixture(autouse=True)
def presets_of_the_checkout(monkeypatch):
    """Read the presets beside these tests, whether mmwcc is installed or not."""
    monkeypatch.setattr(mmwcc.presets, '_FOLDER', FOLDER)


@pytest.mark.parametrize('name', NAMES)
def test_name_says_what_it_is(name):
    config = Config.fromfile(FOLDER / f'{name}.py')
    # Two files of one `_base_` list must not share a key, so a preset has none that a dense config has.
    assert set(config) == {'compression', 'quantizer_paramwise'}
    kind, weight_bits, act_bits, keep = re.fullmatch(r'(quant|wcc)_(?:fp|w(\d+)a(\d+))(?:_k([\d_]+))?', name).groups()
    compression = config.compression
    for quantizer, bits in (('weight_quant', weight_bits), ('act_quant', act_bits)):
        assert (compression[quantizer].bits if bits else compression[quantizer]) == (int(bits) if bits else None)
    if kind == 'wcc':
        assert compression.pointwise.type == 'mmwcc.WaveletCompressedConv2d'
        assert compression.pointwise.keep_ratio == float(keep.replace('_', '.')) / 100
    else:
        assert compression.pointwise.to_dict() == dict(type='mmwcc.QuantConv2d')
    assert config.compression.keep_dense == ['first', 'last']


@pytest.mark.parametrize('name', NAMES)
def test_compress_is_inheriting(name, tmp_path):
    dense, inherits, calls = (tmp_path / f'{stem}.py' for stem in ('dense', 'inherits', 'calls'))
    dense.write_text(DENSE)
    inherits.write_text(f"_base_ = ['./dense.py', {str(FOLDER / f'{name}.py')!r}]\n"
                        "model = dict(type='mmwcc.CompressedModel', task_type=_base_.model.type,\n"
                        '             compression=_base_.compression)\n'
                        'optim_wrapper = dict(paramwise_cfg=_base_.quantizer_paramwise)\n')
    calls.write_text("_base_ = ['./dense.py']\n"
                     'from mmwcc.presets import compress, quantizer_optim\n'
                     f'model = compress(_base_.model, {name!r})\n'
                     'optim_wrapper = quantizer_optim(_base_.optim_wrapper)\n')
    one, other = Config.fromfile(inherits), Config.fromfile(calls)
    assert one.model.to_dict() == other.model.to_dict()
    assert one.optim_wrapper.to_dict() == other.optim_wrapper.to_dict()
    assert one.model.task_type == 'EncoderDecoder'
    assert Config.fromfile(dense).model.to_dict() == {
        **{key: value for key, value in other.model.to_dict().items() if key not in ('task_type', 'compression')},
        'type': 'EncoderDecoder'}


def test_names_are_the_files():
    assert preset_names() == NAMES


def test_changes_are_merged():
    changed = preset('wcc_w8a8_k50', pointwise=dict(levels=2), rules=[dict(pattern='head.*', dense=True)])
    assert changed['pointwise'] == {**preset('wcc_w8a8_k50')['pointwise'], 'levels': 2}
    assert changed['rules'] == [dict(pattern='head.*', dense=True)]
    assert preset('wcc_w8a8_k50')['rules'] == []


def test_unknown_preset():
    with pytest.raises(ValueError, match=r"no preset 'wcc_w8a8_k51'\. Did you mean 'wcc_w8a8_k50'\?") as error:
        compress(dict(type='EncoderDecoder'), 'wcc_w8a8_k51')
    assert all(name in str(error.value) for name in NAMES)


def test_compressing_twice():
    model = compress(dict(type='EncoderDecoder'), 'quant_w8a8')
    with pytest.raises(ValueError, match='compressed already'):
        compress(model, 'quant_w8a4')


def test_changes_need_a_named_preset():
    with pytest.raises(ValueError, match='rules can only change a named preset'):
        compress(dict(type='EncoderDecoder'), preset('quant_w8a8'), rules=[])
