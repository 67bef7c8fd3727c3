"""mmwcc/reports/work_dirs.py."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip('mmengine', reason='work folders are read with mmengine', exc_type=ImportError)

import toy_work_dirs as toy  # noqa: E402

from mmwcc.reports.run_files import Evaluation  # noqa: E402
from mmwcc.reports.run_images import RunImages  # noqa: E402
from mmwcc.reports.work_dirs import read_work_dir  # noqa: E402


def test_a_training(tmp_path):
    work_dir = read_work_dir(toy.make_work_dir(tmp_path / 'a', name='my_config', miou=(50.0, 40.0)))
    assert (work_dir.name, work_dir.config_name, work_dir.seed) == ('a', 'my_config', 3)
    assert work_dir.config.model.type == 'ToyReportNetwork'
    assert work_dir.losses['loss'].values == [4.0, 2.0, 1.5, 1.0] and work_dir.metrics[
        'mIoU'
    ].steps == [20, 40]
    assert (work_dir.last('mIoU'), work_dir.best('mIoU'), work_dir.tested('mIoU')) == (
        40.0,
        50.0,
        None,
    )
    assert work_dir.result('mIoU') == 40.0 and work_dir.result('PSNR') is None
    assert work_dir.last('PSNR') is work_dir.best('PSNR') is None
    assert work_dir.notes == [] and work_dir.checkpoint is None and work_dir.stamp == {}
    assert work_dir.latencies == [] and work_dir.images == RunImages()


def test_resumed_and_tested(tmp_path):
    folder = toy.make_work_dir(tmp_path)
    resumed = toy.make_config(resume=True)
    toy.write_run(
        folder, '20260102_000000', [toy.train_entry(50, 0.5), toy.val_entry(50, 55.0)], resumed
    )
    toy.write_test(folder, '20260103_000000', mIoU=52.0, classes=['road'])
    toy.write_test(folder, '20260104_000000', mIoU=53.0)
    work_dir = read_work_dir(folder)
    assert work_dir.losses['loss'].steps == [10, 20, 30, 40, 50]
    assert work_dir.tests == [
        Evaluation('20260103_000000', dict(mIoU=52.0)),
        Evaluation('20260104_000000', dict(mIoU=53.0)),
    ]
    assert work_dir.result('mIoU') == 53.0 and work_dir.last('mIoU') == 55.0
    assert work_dir.config.resume and len(work_dir.runs) == 4


def test_tested_only(tmp_path):
    toy.write_test(tmp_path, '20260103_000000', mIoU=52.0)
    (tmp_path / 'dense.py').write_text("model = dict(type='ToyReportNetwork')\n")
    work_dir = read_work_dir(tmp_path)
    assert (
        work_dir.config_name == 'dense'
        and work_dir.result('mIoU') == 52.0
        and work_dir.losses == {}
    )


def test_the_config_is_that_of_the_training_not_of_a_later_test(tmp_path):
    folder = toy.make_work_dir(tmp_path, name='trained')
    toy.write_test(folder, '20260103_000000', mIoU=52.0)
    data = folder / '20260103_000000' / 'vis_data'
    data.mkdir()
    for file in (data / 'config.py', folder / 'tested.py'):
        file.write_text("model = dict(type='Other')\n")
    work_dir = read_work_dir(folder)
    assert work_dir.config_name == 'trained' and work_dir.config.model.type == 'ToyReportNetwork'


def write_refused_run(folder):
    """Leave what a compressed training does that is refused in the folder of another run."""
    config = toy.make_config(toy.COMPRESSION)
    toy.write_run(folder, '20260201_000000', [], config)
    (folder / 'refused.py').write_text(
        (folder / '20260201_000000' / 'vis_data' / 'config.py').read_text()
    )


@pytest.mark.parametrize('kind', ['trained', 'validated', 'tested'])
def test_the_config_is_not_that_of_a_run_that_was_refused(tmp_path, kind):
    folder = toy.make_work_dir(tmp_path, name='dense')
    run = folder / '20260101_000000'
    if kind != 'trained':
        log = json.dumps(toy.val_entry(1, 50.0)) if kind == 'validated' else ''
        (run / 'vis_data' / 'scalars.json').write_text(log)
    if kind == 'tested':
        (run / f'{run.name}.json').write_text(json.dumps(dict(mIoU=50.0)))
    write_refused_run(folder)
    work_dir = read_work_dir(folder)
    assert work_dir.config_name == 'dense' and work_dir.config.model.type == 'ToyReportNetwork'


@pytest.mark.parametrize('stamped', [None, toy.COMPRESSION])
def test_without_the_config_of_a_run_the_checkpoint_tells_which_is_its(tmp_path, stamped):
    folder = toy.make_work_dir(tmp_path, name='dense')
    (folder / '20260101_000000' / 'vis_data' / 'config.py').unlink()
    write_refused_run(folder)
    toy.write_checkpoint(folder, dict(compression=stamped))
    os.utime(folder / 'dense.py', (2e9, 2e9) if stamped else (1e9, 1e9))
    name = 'refused' if stamped else 'dense'
    assert read_work_dir(folder).config_name == name
    (folder / 'iter_40.pth').unlink()
    assert read_work_dir(folder).config_name == ('dense' if stamped else 'refused')


def test_seed_that_mmengine_drew(tmp_path):
    folder = toy.make_work_dir(tmp_path)
    file = folder / '20260101_000000' / 'vis_data' / 'config.py'
    file.write_text(file.read_text().replace("{'seed': 3}", '{}'))
    assert read_work_dir(folder).seed is None
    (folder / '20260101_000000' / '20260101_000000.log').write_text(
        'Runtime environment:\n    seed: 1234\n'
    )
    assert read_work_dir(folder).seed == 1234


def test_checkpoint_of_a_moved_folder(tmp_path):
    folder = toy.make_work_dir(tmp_path / 'a')
    toy.write_checkpoint(folder, dict(version='1'), 'iter_20.pth')
    toy.write_checkpoint(folder, dict(version='2'), 'iter_40.pth')
    toy.write_checkpoint(folder, dict(version='3'), 'best_mIoU_iter_20.pth')
    (folder / 'last_checkpoint').write_text('/gone/iter_20.pth')
    moved = shutil.move(folder, tmp_path / 'b')
    assert read_work_dir(moved).stamp == dict(version='1')
    (moved / 'last_checkpoint').unlink()
    os.utime(moved / 'iter_20.pth', (1, 1))
    work_dir = read_work_dir(moved)
    assert work_dir.checkpoint == moved / 'iter_40.pth' and work_dir.stamp == dict(version='2')


def test_damaged_checkpoint_is_a_note(tmp_path):
    folder = toy.make_work_dir(tmp_path)
    toy.write_checkpoint(folder, {})
    whole = (folder / 'iter_40.pth').read_bytes()
    for content in (whole[: len(whole) // 2], b'', b'no checkpoint'):
        (folder / 'iter_40.pth').write_bytes(content)
        work_dir = read_work_dir(folder)
        assert work_dir.stamp == {} and 'iter_40.pth could not be read' in work_dir.notes[0]


def test_latency_is_the_newest(tmp_path):
    folder = toy.make_work_dir(tmp_path)
    toy.write_latency(folder, 9.0, 4.0)
    (latency,) = read_work_dir(folder).latencies
    assert (latency.shape, latency.median, latency.p95, latency.memory) == (
        (1, 3, 8, 16),
        4.0,
        8.0,
        0.5,
    )
    assert latency.dense == 12.0 and latency.machine == 'Some CPU, 2 threads, float32'
    (folder / 'benchmark.json').write_text('{"rows": []}')
    work_dir = read_work_dir(folder)
    assert work_dir.latencies == [] and 'benchmark.json could not be read' in work_dir.notes[0]


@pytest.mark.parametrize('kind', ['mmwcc.BenchmarkHook', 'mmwcc.engine.hooks.BenchmarkHook'])
def test_latency_in_a_file_of_another_name(tmp_path, kind):
    folder = toy.make_work_dir(tmp_path)
    file = folder / '20260101_000000' / 'vis_data' / 'config.py'
    file.write_text(
        file.read_text().replace(
            'default_hooks = {',
            f"default_hooks = {{'speed': {{'type': {kind!r}, 'out_file': 'speed.json'}}, ",
        )
    )
    toy.write_latency(folder, 2.0, out_file='speed.json')
    assert read_work_dir(folder).latencies[0].median == 2.0


def test_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match='must be a work folder, got .*nowhere'):
        read_work_dir(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match='must hold its config, got none'):
        read_work_dir(tmp_path)
    (tmp_path / 'config.py').write_text('model = dict(\n')
    with pytest.raises(ValueError, match=r'config\.py must be readable, got '):
        read_work_dir(tmp_path)
    (tmp_path / 'config.py').write_text('model = dict()\n')
    with pytest.raises(FileNotFoundError, match='got neither in'):
        read_work_dir(tmp_path)
    (tmp_path / '20260101_000000').mkdir()
    (tmp_path / '20260101_000000' / '20260101_000000.json').write_text('{"mIoU": ')
    with pytest.raises(FileNotFoundError, match='got neither in'):
        read_work_dir(tmp_path)


def test_unreadable_test_is_a_note(tmp_path):
    folder = toy.make_work_dir(tmp_path)
    (folder / '20260109_000000').mkdir()
    (folder / '20260109_000000' / '20260109_000000.json').write_text(json.dumps(dict(mIoU=1))[:-2])
    work_dir = read_work_dir(folder)
    assert work_dir.tests == [] and work_dir.notes == [
        f'{folder / "20260109_000000" / "20260109_000000.json"} could not be read and was skipped.'
    ]


def test_what_a_real_training_writes(tmp_path):
    sys.path.insert(0, str(Path(__file__).parents[1] / 'test_engine'))
    from mmengine.registry import MODELS
    from toy_training import COMPRESSION, ToySegmentor, toy_runner

    @MODELS.register_module(force=True)
    class ToyUnlabelled(ToySegmentor):
        """Runs without labels, as the networks of OpenMMLab do."""

        def forward(self, inputs, labels=None, mode='tensor'):
            return super().forward(inputs, labels, mode)

    model = dict(type='mmwcc.CompressedModel', task_type='ToyUnlabelled', compression=COMPRESSION)
    hooks = dict(
        cost=dict(type='mmwcc.CostHook', input_shape=(8, 10), table=False),
        benchmark=dict(type='mmwcc.BenchmarkHook', shapes=[(8, 10)], repeats=2, start=False),
    )
    for length, resume in ((4, False), (6, True)):
        toy_runner(
            tmp_path, length=length, val_interval=2, hooks=hooks, resume=resume, model=model
        ).train()
        time.sleep(1.1)  # runs are named by the second
    toy_runner(tmp_path, hooks=hooks, model=model, load_from=str(tmp_path / 'iter_6.pth')).test()
    work_dir = read_work_dir(tmp_path)
    assert len(work_dir.runs) == 3 and work_dir.seed == 1 and work_dir.notes == []
    assert work_dir.losses['loss'].steps == [1, 2, 3, 4, 5, 6]
    assert (
        work_dir.metrics['accuracy'].steps == [2, 4, 6]
        and work_dir.metrics['accuracy'].unit == 'iteration'
    )
    assert work_dir.tested('accuracy') == work_dir.result('accuracy')
    assert work_dir.scalars['cost/macs'].values[-1] == work_dir.stamp['cost']['total']['macs']
    assert work_dir.stamp['layers']['point']['keep_ratio'] == 0.5
    assert work_dir.latencies[0].shape == (1, 3, 8, 10) and work_dir.latencies[0].dense > 0
