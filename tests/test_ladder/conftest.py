"""A ladder of a small classifier, and tools that only pretend to train and test it."""

import json
from pathlib import Path

import pytest

pytest.importorskip('mmengine')
import torch  # noqa: E402

from mmwcc.ladder import LadderRun, read_ladder  # noqa: E402

DENSE = """
default_scope = 'mmengine'
work_dir = 'nowhere'
test_dataloader = dict(dataset=dict(img_scale=(32, 32)))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=4)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
default_hooks = dict()
model = dict(
    type='mmwcc.ImageClassifier',
    data_preprocessor=dict(type='mmwcc.ClsDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(type='mmwcc.WaveletNetCifar', depth=4, widths=(8, 16, 32), kappa=(0, 3, 3)),
    neck=dict(type='mmwcc.GlobalAveragePooling'),
    head=dict(type='mmwcc.LinearClsHead', num_classes=10, in_channels=32))
"""

LADDER = """
config = 'dense.py'
checkpoint = {checkpoint!r}
recipe = dict(optim_wrapper=dict(optimizer=dict(lr=0.05)))
_wcc = dict(compression='wcc_w8a8_k25')
points = [
    dict(name='dense', train=False, tags=['few']),
    dict(name='quant', compression='quant_w8a8', tags=['few']),
    dict(name='wcc', start='quant', **_wcc),
    dict(name='ptq', train=False, calibration=dict(images=3, keep_batch_norm=True), **_wcc),
]
"""


class Tools:
    """Leaves what tools/train.py, test.py and calibrate.py leave, and remembers who was called."""

    def __init__(self):
        self.calls = []
        self.broken = set()

    def __call__(self, command, log, lock):
        tool, config, folder = Path(command[1]).stem, Path(command[2]), Path(command[-1])
        self.calls.append(f'{tool} {folder.name}')
        log.write_text(f'{tool} says something\n\n')
        if self.calls[-1] in self.broken:
            return 3
        (folder / config.name).write_text(config.read_text())
        if tool == 'train':
            torch.save({}, folder / 'iter_4.pth')
        elif tool == 'calibrate':
            torch.save({}, command[command.index('--out') + 1])
        else:
            run = folder / f'20260101_{len(self.calls):06d}'
            run.mkdir()
            (run / f'{run.name}.json').write_text(
                json.dumps({'accuracy/top1': 50.0 + len(self.calls)})
            )
        return 0


@pytest.fixture
def tools():
    return Tools()


@pytest.fixture
def write(tmp_path):
    """Write a ladder with changes of its text; return its path."""
    (tmp_path / 'dense.py').write_text(DENSE)
    torch.save({}, tmp_path / 'dense.pth')

    def write(*changes, add=''):
        text = LADDER.format(checkpoint=str(tmp_path / 'dense.pth'))
        for old, new in changes:
            assert text.count(old) == 1
            text = text.replace(old, new)
        (tmp_path / 'ladder.py').write_text(text + add)
        return tmp_path / 'ladder.py'

    return write


@pytest.fixture
def start(write, tools, tmp_path):
    """Return a run of a ladder with the pretending tools, and the lines that it says."""

    def start(*changes, seeds=(0,), only=(), execute=tools, add=''):
        ladder, lines = read_ladder(write(*changes, add=add)), []
        run = LadderRun(ladder, tmp_path / 'work', ladder.steps(seeds, only), execute, lines.append)
        run.lines = lines
        return run

    return start
