"""tools/analysis_tools/run_ladder.py, with trainings that really run, and one that is killed."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('mmengine')
import torch  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.registry import MODELS  # noqa: E402

ROOT = Path(__file__).parents[2]

DENSE = """
default_scope = 'mmengine'
custom_imports = dict(imports=['kill_once'])
loader = dict(batch_size=4, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
    type='mmwcc.CIFAR10', data_root={data!r}, pipeline=[dict(type='mmwcc.PackClsInputs')]))
train_dataloader = loader
test_dataloader = dict(loader, sampler=dict(type='DefaultSampler', shuffle=False),
                       dataset=dict(loader['dataset'], split='test', test_mode=True))
test_cfg = dict()
test_evaluator = dict(type='mmwcc.Accuracy')
train_cfg = dict(by_epoch=False, max_iters=9)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=1e-3))
model = dict(
    type='mmwcc.ImageClassifier',
    data_preprocessor=dict(type='mmwcc.ClsDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(type='mmwcc.WaveletNetCifar', depth=4, widths=(8, 16, 32), kappa=(0, 3, 3)),
    neck=dict(type='mmwcc.GlobalAveragePooling'),
    head=dict(type='mmwcc.LinearClsHead', num_classes=10, in_channels=32))
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=False),
    logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
    random_state=dict(type='mmwcc.RandomStateHook'),
    kill=dict(type='KillOnce'))
"""

LADDER = """
config = 'dense.py'
checkpoint = {checkpoint!r}
recipe = dict(train_cfg=dict(max_iters=3))
points = [dict(name='wcc', compression='wcc_w8a8_k25', tags=['one']), dict(name='dense',
    train=False)]
"""

KILL = """
import os, signal
from pathlib import Path
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class KillOnce(Hook):
    priority = 'LOWEST'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 1 and not Path(__file__).with_name('killed').exists():
            Path(__file__).with_name('killed').touch()
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.setenv('MMWCC_KERNELS', 'reference')  # numba takes seconds to start in each process
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    path = ROOT / 'tools' / 'analysis_tools' / 'run_ladder.py'
    spec = importlib.util.spec_from_file_location('run_ladder', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def ladder(tmp_path, monkeypatch):
    """Path of a ladder whose first training is killed after two iterations."""
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    records = np.random.default_rng(0).integers(0, 256, (12, 3073), dtype=np.uint8)
    records[:, 0] %= 10
    for name in ('data_batch_1', 'test_batch'):
        records.tofile(tmp_path / f'{name}.bin')
    (tmp_path / 'kill_once.py').write_text(KILL)
    (tmp_path / 'dense.py').write_text(DENSE.format(data=str(tmp_path)))
    model = MODELS.build(Config.fromfile(tmp_path / 'dense.py', import_custom_modules=False).model)
    torch.save(dict(meta={}, state_dict=model.state_dict()), tmp_path / 'dense.pth')
    (tmp_path / 'ladder.py').write_text(LADDER.format(checkpoint=str(tmp_path / 'dense.pth')))
    return tmp_path / 'ladder.py'


def call(tool, ladder, *args):
    """Return the exit code, or the message that the tool ends with; None for success without an
    exit.
    """
    try:
        tool.main(
            [str(ladder), '--work-dir', str(ladder.parent / 'work'), '--shape', '32', '32', *args]
        )
    except SystemExit as error:
        return error.code
    return None


def test_plan_refusals_and_report_of_nothing(tool, ladder, capsys):
    assert call(tool, ladder, '--dry-run', '--seeds', '3', '4') is None
    said = capsys.readouterr().out
    assert (
        'wcc_seed3: new\n' in said
        and 'wcc_seed4: new\n' in said
        and said.count('dense: new\n') == 1
    )
    assert (
        said.count('train.py') == 2
        and said.count('test.py') == 3
        and not (ladder.parent / 'work').exists()
    )
    assert 'run_ladder: ladder: --only two matches no point' in call(tool, ladder, '--only', 'two')
    assert 'must hold a finished point' in call(tool, ladder, '--report')
    assert (
        'run_ladder: ' in call(tool, ladder.with_name('none.py'))
        and not (ladder.parent / 'work').exists()
    )
    missing = call(tool, ladder, '--cfg-options', 'checkpoint=no/such.pth')
    assert missing.startswith('run_ladder: The checkpoint no/such.pth does not exist')
    capsys.readouterr()
    assert call(tool, ladder, '--dry-run', '--cfg-options', 'checkpoint=no/such.pth') is None
    said = capsys.readouterr().out
    assert said.startswith('no/such.pth is not there. The ladder begins with it')
    assert 'wcc_seed0: new\n' in said


@pytest.mark.slow
def test_a_killed_training_goes_on(tool, ladder, capsys):
    work = ladder.parent / 'work'
    assert (
        call(tool, ladder, '--only', 'one')
        == f'run_ladder: ladder: {work} must hold a finished point, got none. '
        'Run the ladder first.'
    )
    captured = capsys.readouterr()
    assert (
        'wcc_seed0: failed, train.py ended with -9' in captured.out
        and 'not finished: wcc_seed0' in captured.err
    )

    assert call(tool, ladder) == 0
    said = capsys.readouterr().out
    assert '[1/2] wcc_seed0: goes on' in said and '[2/2] dense: finished, accuracy/top1' in said
    log = (work / 'wcc_seed0' / 'ladder.log').read_text()
    assert (
        'resumed epoch: 0, iter: 2' in log
        and log.count('tools/train.py') == 2
        and log.count('tools/test.py') == 1
    )
    table = [line.split(' | ') for line in said.split('\n') if line.startswith('| ')]
    assert [row[0] for row in table] == ['| point', '| wcc', '| dense']
    assert (work / 'tradeoff.png').is_file() and (work / 'tradeoff.csv').is_file()

    assert call(tool, ladder, '--report') == 0 and capsys.readouterr().out.split('\n')[2:4] == [
        ' | '.join(row) for row in table[1:]
    ]
    assert call(tool, ladder) == 0 and (work / 'wcc_seed0' / 'ladder.log').read_text() == log
    changed = call(tool, ladder, '--cfg-options', 'recipe.optim_wrapper.optimizer.lr=0.5')
    assert 'wcc_seed0 in' in changed and 'optim_wrapper.optimizer.lr was 0.001, is 0.5' in changed
