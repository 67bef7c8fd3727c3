"""The config of a point, and what tells two of them apart."""

import copy
from pathlib import Path

import pytest
from mmengine.config import Config

from mmwcc.checkpoint import final_checkpoint
from mmwcc.ladder import Point, Step, read_ladder
from mmwcc.ladder.point_config import (
    build_config,
    differences,
    file_fingerprint,
    fingerprint,
    settings_of,
)
from mmwcc.presets import preset
from mmwcc.utils import LaunchError


@pytest.fixture
def build(write):
    def build(seed=5, folder='work/p', start='a.pth', teacher='t.pth', **point):
        return build_config(
            read_ladder(write()), Step(Point('p', **point), seed), Path(folder), start, teacher
        )

    return build


def test_dense_point(build):
    config = build()
    assert config.optim_wrapper == dict(optimizer=dict(type='SGD', lr=0.05))  # of the recipe
    assert config.model.type == 'mmwcc.ImageClassifier' and config.randomness == dict(seed=5)
    assert (config.work_dir, config.load_from, config.resume) == ('work/p', 'a.pth', False)
    assert final_checkpoint(config) == Path('work/p/iter_4.pth')
    config.train_cfg = dict(by_epoch=True, max_epochs=3)
    assert final_checkpoint(config) == Path('work/p/epoch_3.pth')
    assert 'randomness' not in build(seed=None)


def test_compressed_point(build):
    config = build(
        compression='wcc_w8a8_k25',
        changes=dict(
            pointwise=dict(wavelet='db2'),
            act_quant=dict(type='mmwcc.LSQActQuantizer', bits=4, _delete_=True),
        ),
        overrides=dict(optim_wrapper=dict(optimizer=dict(lr=0.7))),
    )
    expected = preset('wcc_w8a8_k25')
    expected['pointwise']['wavelet'], expected['act_quant'] = (
        'db2',
        dict(type='mmwcc.LSQActQuantizer', bits=4),
    )
    assert (
        config.model.compression == expected and config.model.task_type == 'mmwcc.ImageClassifier'
    )
    assert config.optim_wrapper.optimizer.lr == 0.7
    assert config.optim_wrapper.paramwise_cfg.custom_keys.clip_alpha == dict(
        lr_mult=0.1, decay_mult=0.0
    )
    assert 'paramwise_cfg' not in build(compression='wcc_w8a8_k25', train=False).optim_wrapper


def test_compression_of_a_file(build, tmp_path):
    (tmp_path / 'mine.py').write_text(
        "_base_ = 'mmwcc::_base_/compression/quant_w8a8.py'\n"
        'compression = dict(act_quant=dict(bits=5))\n'
    )
    config = build(compression='mine.py', changes=dict(weight_quant=dict(bits=3)))
    assert (
        config.model.compression.act_quant.bits,
        config.model.compression.weight_quant.bits,
    ) == (5, 3)
    assert build(compression=dict(act_quant=None)).model.compression == dict(act_quant=None)
    with pytest.raises(
        LaunchError, match='compression of point p is to be in .*none.py, which does not exist'
    ):
        build(compression='none.py')
    with pytest.raises(ValueError, match="no preset 'quant_w8a9'. Did you mean 'quant_w8a"):
        build(compression='quant_w8a9')
    with pytest.raises(ValueError, match="unknown key 'act_quants'"):
        build(compression='quant_w8a8', changes=dict(act_quants=dict(bits=2)))


def test_schedules_are_in_fractions_of_the_training(build):
    schedule = dict(keep_ratio=dict(type='linear', begin=0.25, end=0.75, start=1.0, stop=0.25))
    hook = build(compression='wcc_w8a8_k25', schedule=schedule).default_hooks.compression_schedule
    assert hook == dict(
        type='mmwcc.CompressionScheduleHook',
        by_epoch=False,
        keep_ratio=dict(type='linear', begin=1, end=3, start=1.0, stop=0.25),
    )
    epochs = dict(train_cfg=dict(_delete_=True, by_epoch=True, max_epochs=8))
    hook = build(
        compression='wcc_w8a8_k25', schedule=schedule, overrides=epochs
    ).default_hooks.compression_schedule
    assert hook.by_epoch and (hook.keep_ratio.begin, hook.keep_ratio.end) == (2, 6)


def test_distillation(build):
    hook = build(
        compression='wcc_w8a8_k25', distillation=dict(weight=2.0)
    ).default_hooks.distillation
    assert hook == dict(type='mmwcc.DistillationHook', checkpoint='t.pth', weight=2.0)


def test_fingerprint_is_of_what_matters(build, tmp_path):
    def mark(origins=None, **kwargs):
        config = build(**kwargs)
        point = Point(
            'p',
            **{
                key: value
                for key, value in kwargs.items()
                if key not in ('folder', 'start', 'seed', 'teacher')
            },
        )
        return fingerprint(settings_of(config, point, origins or dict(start='abc')))

    wcc = dict(compression='wcc_w8a8_k25', distillation=dict(weight=2.0))
    same = mark(**wcc)
    assert (
        same == mark(**wcc, folder='elsewhere', start='copy.pth', teacher='other.pth')
        and len(same) == 16
    )
    others = [
        mark(**wcc, seed=6),
        mark(**wcc, origins=dict(start='abd')),
        mark(**wcc, changes=dict(rules=[])),
        mark(**wcc, changes=dict(pointwise=dict(levels=2))),
        mark(compression='wcc_w8a8_k25'),
        mark(compression='wcc_w8a8_k25', train=False),
        mark(compression='wcc_w8a8_k25', train=False, calibration=dict(images=4)),
    ]
    assert others[2] == same  # that is what the preset says anyway
    assert len(set(others)) == len(others)
    one, other = tmp_path / 'one', tmp_path / 'other'
    one.write_bytes(b'weights'), other.write_bytes(b'weights')
    assert (
        file_fingerprint(str(one))
        == file_fingerprint(str(other))
        != file_fingerprint('https://x/y.pth')
    )
    other.write_bytes(b'Weights')
    assert file_fingerprint(str(one)) != file_fingerprint(str(other))


def test_settings_do_not_change_the_config(build):
    config = build(compression='wcc_w8a8_k25', distillation=dict(weight=2.0))
    before = copy.deepcopy(config.to_dict())
    settings_of(config, Point('p'), {})
    assert config.to_dict() == before


def test_differences():
    assert differences(dict(a=1, b=dict(c=[1, 2], d='x')), dict(b=dict(c=[1, 3], d='x'), e={})) == [
        'a was 1, is absent',
        'b.c was [1, 2], is [1, 3]',
        'e was absent, is {}',
    ]


def test_a_pure_python_config_can_be_written_and_read(write, tmp_path):
    ladder = write()
    dense = (
        (tmp_path / 'dense.py')
        .read_text()
        .replace("type='mmwcc.ImageClassifier'", 'type=ImageClassifier')
    )
    (tmp_path / 'dense.py').write_text(f'from mmwcc.models import ImageClassifier\n{dense}')
    point = Point('p', compression='wcc_w8a8_k25')
    config = build_config(read_ladder(ladder), Step(point, 0), tmp_path / 'p', 'a.pth')
    config.dump(tmp_path / 'point.py')
    again = Config.fromfile(tmp_path / 'point.py')
    assert again.model.task_type == 'mmwcc.models.ImageClassifier' and again.model == config.model
    assert settings_of(again, point, {}) == settings_of(config, point, {})
