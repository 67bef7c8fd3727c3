"""What the log says of a stage, and from where a stage may start; with real runners."""

import pytest
import torch
from toy_training import toy_runner

from mmwcc.engine.hooks import TrainingStageHook


def run(work_dir, load_from=None, resume=False, compression=None, length=2, **hook):
    settings = dict(dict(type='mmwcc.TrainingStageHook', stage=2, note='the second'), **hook)
    runner = toy_runner(
        work_dir,
        compression=compression,
        length=length,
        load_from=load_from,
        resume=resume,
        log_level='INFO',
        hooks=dict(
            training_stage=settings,
            compression_schedule=None,
            compression_check=None,
            random_state=None,
        ),
    )
    runner.model.classify.bias.requires_grad_(False)
    runner.train()
    return runner


def log(work_dir) -> str:
    return '\n'.join(path.read_text() for path in sorted(work_dir.rglob('*.log')))


def test_the_log_says_what_is_trained(tmp_path):
    run(tmp_path)
    text = log(tmp_path)
    assert (
        'training stage 2 of 3 (the second) begins at iteration 0, from the initialization that '
        'the config names. Trained: stem (224 parameters), '
    ) in text
    assert 'classify (16 parameters). Frozen: classify (2 parameters).' in text
    assert 'training stage 2 of 3 (the second) ends at iteration 2.' in text


def test_a_stage_that_needs_a_checkpoint(tmp_path):
    with pytest.raises(
        RuntimeError,
        match=r'stage 2 of 3 \(the second\) must start from a checkpoint of the stage '
        'before, got load_from=None',
    ):
        run(tmp_path / 'a', needs_checkpoint=True)
    run(tmp_path / 'a')
    runner = run(tmp_path / 'b', load_from=str(tmp_path / 'a/iter_2.pth'), needs_checkpoint=True)
    assert runner.iter == 2
    # Once begun, a stage resumes from its own checkpoint.
    assert run(tmp_path / 'b', resume=True, needs_checkpoint=True, length=3).iter == 3


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    torch.save(
        dict(state_dict={'module.stem.weight': torch.zeros(8, 3, 3, 3)}, meta={}),
        tmp_path / 'other.pth',
    )
    with pytest.raises(
        RuntimeError, match='got one without stem.bias and [0-9]+ other weights: .*other.pth'
    ):
        run(tmp_path, load_from=str(tmp_path / 'other.pth'), needs_checkpoint=True)
    run(tmp_path, load_from=str(tmp_path / 'other.pth'))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match='stage must be in 1 to stages=3, got 4'):
        TrainingStageHook(4)
    assert TrainingStageHook(1, 2).title == 'training stage 1 of 2'
