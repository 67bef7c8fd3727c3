"""The presets of configs/_base_/compression, as bases and through mmwcc.presets."""

import json
import re

import pytest
from fabricated import CONFIGS, config_files, drop_pretrained, read
from mmengine.config import Config
from torch import nn

import mmwcc.presets
from mmwcc.compressed_config import without_compression
from mmwcc.model_tree.compressed import compressed_layers
from mmwcc.presets import compress, preset, preset_names, quantizer_optim
from mmwcc.utils import build_model

FOLDER = CONFIGS / '_base_' / 'compression'
NAMES = sorted(path.stem for path in FOLDER.glob('*.py'))
BY_ENERGY = [name for name in NAMES if '_rows_' in name or '_position_' in name]
DENSE = """
model = dict(type='EncoderDecoder', backbone=dict(type='MobileNetV2', out_indices=(1, 2)),
    test_cfg=dict(mode='whole'))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, weight_decay=1e-4),
    clip_grad=None)
"""


@pytest.fixture(autouse=True)
def presets_of_the_checkout(monkeypatch):
    """Read the presets beside these tests, whether mmwcc is installed or not."""
    monkeypatch.setattr(mmwcc.presets, '_FOLDER', FOLDER)


@pytest.mark.parametrize('name', BY_ENERGY)
def test_name_says_how_positions_are_quantized(name):
    config = Config.fromfile(FOLDER / f'{name}.py')
    assert set(config) == {'compression', 'quantizer_paramwise'}
    kind, bits = re.fullmatch(r'(wcc_rows_b|quant_position_w8a)(\d)', name).groups()
    compression, quantizer = config.compression, config.compression.pointwise.act_quant
    assert (quantizer.type, quantizer.bits) == ('mmwcc.EnergyActQuantizer', int(bits))
    assert ('widths' in quantizer) == (kind == 'wcc_rows_b')
    assert compression.weight_quant.bits == compression.act_quant.bits == 8
    assert compression.weight_quant.per_channel
    assert compression.other.type == 'mmwcc.QuantConv2d'


@pytest.mark.parametrize('name', [name for name in NAMES if name not in BY_ENERGY])
def test_name_says_what_it_is(name):
    config = Config.fromfile(FOLDER / f'{name}.py')
    # Two files of one `_base_` list must not share a key, so a preset has none that a dense config
    # has.
    assert set(config) == {'compression', 'quantizer_paramwise'}
    kind, weight_bits, act_bits, keep = re.fullmatch(
        r'(quant|wcc)(?:_channel|_linear)?_(?:fp|w(\d+)a(\d+))(?:_k([\d_]+))?', name
    ).groups()
    compression = config.compression
    for quantizer, bits in (('weight_quant', weight_bits), ('act_quant', act_bits)):
        assert (compression[quantizer].bits if bits else compression[quantizer]) == (
            int(bits) if bits else None
        )
    if kind == 'wcc':
        assert compression.pointwise.type == 'mmwcc.WaveletCompressedConv2d'
        assert compression.pointwise.keep_ratio == float(keep.replace('_', '.')) / 100
    else:
        assert compression.pointwise.to_dict() == dict(type='mmwcc.QuantConv2d')
    assert config.compression.keep_dense == ['first', 'last']
    if '_linear_' in name:
        form = dict(quant='Quant', wcc='WaveletCompressed')[kind]
        assert compression.linear.type == f'mmwcc.{form}Linear'
        assert compression.linear.get('keep_ratio') == compression.pointwise.get('keep_ratio')
    else:
        assert 'linear' not in compression
    # What is for runtimes has a grid that they fuse. What is of the paper keeps the paper's.
    for_runtimes = '_channel_' in name
    if weight_bits:
        assert compression.weight_quant.get('per_channel', False) == for_runtimes
    if act_bits:
        assert compression.act_quant.get('symmetric', True) != for_runtimes


@pytest.mark.parametrize('name', NAMES)
def test_compress_is_inheriting(name, tmp_path):
    dense, inherits, calls = (tmp_path / f'{stem}.py' for stem in ('dense', 'inherits', 'calls'))
    dense.write_text(DENSE)
    inherits.write_text(
        f"_base_ = ['./dense.py', {str(FOLDER / f'{name}.py')!r}]\n"
        "model = dict(type='mmwcc.CompressedModel', task_type=_base_.model.type,\n"
        '             compression=_base_.compression)\n'
        'optim_wrapper = dict(paramwise_cfg=_base_.quantizer_paramwise)\n'
    )
    calls.write_text(
        "_base_ = ['./dense.py']\n"
        'from mmwcc.presets import compress, quantizer_optim\n'
        f'model = compress(_base_.model, {name!r})\n'
        'optim_wrapper = quantizer_optim(_base_.optim_wrapper)\n'
    )
    one, other = Config.fromfile(inherits), Config.fromfile(calls)
    assert one.model.to_dict() == other.model.to_dict()
    assert one.optim_wrapper.to_dict() == other.optim_wrapper.to_dict()
    assert one.model.task_type == 'EncoderDecoder'
    assert Config.fromfile(dense).model.to_dict() == {
        **{
            key: value
            for key, value in other.model.to_dict().items()
            if key not in ('task_type', 'compression')
        },
        'type': 'EncoderDecoder',
    }


def test_names_are_the_files():
    assert preset_names() == NAMES


def test_changes_are_merged():
    changed = preset(
        'wcc_w8a8_k50', pointwise=dict(levels=2), rules=[dict(pattern='head.*', dense=True)]
    )
    assert changed['pointwise'] == {**preset('wcc_w8a8_k50')['pointwise'], 'levels': 2}
    assert changed['rules'] == [dict(pattern='head.*', dense=True)]
    assert preset('wcc_w8a8_k50')['rules'] == []


def test_unknown_preset():
    with pytest.raises(
        ValueError, match=r"no preset 'wcc_w8a8_k51'\. Did you mean 'wcc_w8a8_k50'\?"
    ) as error:
        compress(dict(type='EncoderDecoder'), 'wcc_w8a8_k51')
    assert all(name in str(error.value) for name in NAMES)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(keep_ratio=0.3), r'Did you mean pointwise=dict\(keep_ratio=...\)'),
        (dict(pointwize=dict(keep_ratio=0.3)), "Did you mean 'pointwise'"),
    ],
)
def test_an_unknown_key_of_a_preset_is_refused_where_it_is_written(changes, message):
    for call in (
        preset,
        lambda *args, **keys: compress(dict(type='EncoderDecoder'), *args, **keys),
    ):
        with pytest.raises(ValueError, match=f'compression: unknown key .*{message}'):
            call('wcc_w8a8_k50', **changes)
    with pytest.raises(ValueError, match=f'compression: unknown key .*{message}'):
        compress(dict(type='EncoderDecoder'), changes)


@pytest.mark.parametrize(
    ('model', 'error', 'message'),
    [
        (
            nn.Conv2d(3, 3, 1),
            TypeError,
            r'that is built: Conv2d. Use compress_model\(model, preset',
        ),
        ('EncoderDecoder', TypeError, r"config of a model, got 'EncoderDecoder'. Use compress\("),
        (
            dict(model=dict(type='A')),
            ValueError,
            r'the keys model. Use compress\(_base_.model, ...',
        ),
        (Config(dict(model=dict(type='A'))), ValueError, r'Use compress\(_base_.model, ...'),
        (dict(backbone=dict(type='A')), ValueError, 'with the keys backbone. Give it a type'),
    ],
)
def test_what_is_no_config_of_a_model_is_refused(model, error, message):
    with pytest.raises(error, match=message):
        compress(model, 'wcc_w8a8_k50')


def test_a_compression_that_is_neither_a_name_nor_a_dictionary_is_refused():
    with pytest.raises(TypeError, match='name of a preset or a dictionary, got 8'):
        compress(dict(type='EncoderDecoder'), 8)


def test_results_are_changed_like_any_other_part_of_a_config():
    dense = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    optim_wrapper = quantizer_optim(dense)
    optim_wrapper.optimizer.lr /= 10
    assert optim_wrapper['optimizer'] == dict(type='SGD', lr=0.01, weight_decay=0.0)
    assert dense['optimizer'] == dict(type='SGD', lr=0.1)
    model = compress(dict(type='EncoderDecoder', backbone=dict(depth=50)), 'wcc_w8a8_k50')
    model.backbone.depth = 18
    model.compression.pointwise.keep_ratio = 0.3
    assert preset('wcc_w8a8_k50').pointwise.keep_ratio == 0.5


def test_a_config_lowers_the_learning_rate(tmp_path):
    """As docs/getting_started.md does."""
    (tmp_path / 'dense.py').write_text(DENSE)
    (tmp_path / 'compressed.py').write_text(
        "_base_ = ['./dense.py']\n"
        'from mmwcc.presets import quantizer_optim\n'
        'optim_wrapper = quantizer_optim(_base_.optim_wrapper)\n'
        'optim_wrapper.optimizer.lr = 0.1 * _base_.optim_wrapper.optimizer.lr\n'
    )
    optim_wrapper = Config.fromfile(tmp_path / 'compressed.py').optim_wrapper
    assert optim_wrapper.optimizer.lr == pytest.approx(0.01)
    assert optim_wrapper.paramwise_cfg.custom_keys.clip_alpha.decay_mult == 0


def test_an_optimizer_wrapper_without_optimizer_is_refused():
    with pytest.raises(ValueError, match=r'Use quantizer_optim\(_base_.optim_wrapper\)'):
        quantizer_optim(dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1))))


def test_compressing_twice():
    model = compress(dict(type='EncoderDecoder'), 'quant_w8a8')
    with pytest.raises(ValueError, match='compressed already'):
        compress(model, 'quant_w8a4')


def test_changes_need_a_named_preset():
    with pytest.raises(ValueError, match='rules can only change a named preset'):
        compress(dict(type='EncoderDecoder'), preset('quant_w8a8'), rules=[])


DENSE_CONFIGS = [name for name in config_files() if not re.search('_(quant|wcc)-', name)]


def two_lines(name: str) -> str:
    return (
        f'_base_ = [{str(CONFIGS / name)!r}]\nfrom mmwcc.presets import compress\n'
        "model = compress(_base_.model, 'wcc_w8a8_k50')\n"
    )


@pytest.mark.slow
def test_two_lines_compress_every_config(tmp_path):
    """Whatever model a shipped config has, inheriting it and calling ``compress`` gives a model
    that can be built.
    """
    seen = set()
    for name in DENSE_CONFIGS:
        dense = read(name).model
        drop_pretrained(dense)
        text = json.dumps({**dense, 'data_preprocessor': None}, sort_keys=True)
        if text in seen:  # of several data sets
            continue
        seen.add(text)
        (tmp_path / 'compressed.py').write_text(two_lines(name))
        config = Config.fromfile(tmp_path / 'compressed.py')
        drop_pretrained(config.model)
        assert without_compression(config.model) == dense, name
        model = build_model(config)
        assert type(model).__name__ in (
            dense.type.removeprefix('mmwcc.'),
            dense.get('task_type'),
        ), name
        assert compressed_layers(model), name
    assert len(seen) > 40


def test_two_lines_over_a_front_end(tmp_path):
    name = 'wae/deeplabv3plus_mobilenetv2-os16_wae_3000i_camvid-256x256.py'
    (tmp_path / 'compressed.py').write_text(two_lines(name))
    config = Config.fromfile(tmp_path / 'compressed.py')
    assert config.model.task_type == ['mmwcc.WAEModel', 'EncoderDecoder']
    config.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py').model == config.model


def test_two_lines_over_a_compressed_config(tmp_path):
    name = 'wcc/demo/deeplabv3plus_mobilenetv2-0.5x_quant-w8a8_20i_street-192x128.py'
    (tmp_path / 'compressed.py').write_text(two_lines(name))
    with pytest.raises(ValueError, match='the model is compressed already'):
        Config.fromfile(tmp_path / 'compressed.py')
