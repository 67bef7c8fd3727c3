"""Compression dictionaries written as data, and the configs that inherit them."""

import pytest

pytest.importorskip('mmengine')
from mmengine.config import Config, ConfigDict  # noqa: E402

from mmwcc.compression import CompressionConfig  # noqa: E402
from mmwcc.utils import CONFIG_SUFFIXES, write_compression  # noqa: E402

RULES = [
    dict(pattern=r'backbone\.layer1\.0', type='mmwcc.QuantConv2d', weight_quant=dict(bits=4)),
    dict(pattern='a, {b}: #c', keep_ratio=1e-5),
]
COMPRESSION = dict(
    pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.25, levels=3),
    keep_dense=['first', 'predictors'],
    only_if_faster=None,
    rules=RULES,
)


def test_what_is_written_is_read(tmp_path):
    write_compression(tmp_path / 'all.yml', COMPRESSION, note='12 of 34 G BOPs\nby hand')
    assert Config.fromfile(tmp_path / 'all.yml').to_dict() == dict(compression=COMPRESSION)
    assert (
        (tmp_path / 'all.yml')
        .read_text()
        .startswith('# 12 of 34 G BOPs\n# by hand\ncompression:\n')
    )


def test_a_rule_takes_a_line(tmp_path):
    write_compression(tmp_path / 'all.yml', COMPRESSION)
    lines = [line for line in (tmp_path / 'all.yml').read_text().splitlines() if 'pattern' in line]
    assert lines[0] == (
        r'  - {pattern: backbone\.layer1\.0, type: mmwcc.QuantConv2d, weight_quant: {bits: 4}}'
    )
    assert len(lines) == len(RULES)


def test_configs_of_any_folder_inherit_it(tmp_path):
    (tmp_path / 'data').mkdir()
    paramwise = dict(custom_keys=dict(clip_alpha=dict(lr_mult=0.1)))
    write_compression(
        tmp_path / 'data' / 'rules.yml', COMPRESSION, quantizer_paramwise=ConfigDict(paramwise)
    )
    (tmp_path / 'mine.py').write_text(
        "_base_ = './data/rules.yml'\nmodel = dict(compression=_base_.compression)\n"
    )
    config = Config.fromfile(tmp_path / 'mine.py')
    assert (
        config.model.compression.rules == RULES
        and config.model.compression.pointwise.keep_ratio == 0.25
    )
    assert config.quantizer_paramwise == paramwise
    CompressionConfig.parse(config.model.compression)


def test_configs_and_tuples_become_plain(tmp_path):
    write_compression(
        tmp_path / 'all.yml', ConfigDict(separate=dict(input_shape=(360, 480)), rules=(RULES[0],))
    )
    assert Config.fromfile(tmp_path / 'all.yml').to_dict()['compression'] == dict(
        separate=dict(input_shape=[360, 480]), rules=[RULES[0]]
    )


@pytest.mark.parametrize('suffix', CONFIG_SUFFIXES)
def test_suffixes_are_those_of_configs(suffix, tmp_path):
    path = tmp_path / f'config{suffix}'
    path.write_text('a = 1\n' if suffix == '.py' else '{"a": 1}')
    assert Config.fromfile(path).a == 1
