"""What a checkpoint must hold for a training to be resumed from it."""

import pytest
import torch

pytest.importorskip('mmengine')
from mmengine.config import Config  # noqa: E402

from mmwcc.deployment import publish  # noqa: E402
from mmwcc.utils import LaunchError, check_resumable  # noqa: E402

WHOLE = dict(
    meta=dict(iter=2, epoch=0),
    state_dict=dict(w=torch.ones(2)),
    message_hub={},
    optimizer={},
    param_schedulers=[],
)
TRAINING = dict(train_cfg=dict(max_iters=4), param_scheduler=[dict(type='PolyLR')])


def saved(folder, **changes):
    path = folder / 'iter_2.pth'
    torch.save(
        {key: value for key, value in {**WHOLE, **changes}.items() if value is not None}, path
    )
    return str(path)


@pytest.mark.parametrize(
    ('changes', 'missing'),
    [
        (dict(optimizer=None), 'the state of the optimizer: it would start anew. Start a new run'),
        (dict(param_schedulers=None), 'the state of the parameter schedules: '),
        (
            dict(optimizer=None, param_schedulers=None),
            'the state of the optimizer and the state of the parameter',
        ),
        (dict(message_hub=None), r'the log history \(message_hub\)'),
        (dict(meta=None), 'the iteration and epoch'),
        (dict(meta=dict(iter=2)), 'the iteration and epoch'),
    ],
)
def test_a_checkpoint_without_a_part_is_refused(tmp_path, changes, missing):
    with pytest.raises(
        LaunchError, match=f'cannot be resumed from .*iter_2.pth, which does not hold {missing}'
    ):
        check_resumable(saved(tmp_path, **changes), Config(TRAINING))


@pytest.mark.parametrize(
    ('changes', 'training'),
    [
        ({}, {}),
        (dict(param_schedulers=None), dict(param_scheduler=None)),
        (dict(optimizer=None, meta=dict(iter=4, epoch=0)), {}),
        (dict(optimizer=None, meta=dict(iter=40, epoch=3)), dict(train_cfg=dict(max_epochs=3))),
        (dict(optimizer=None), dict(runner_type='FlexibleRunner')),
    ],
)
def test_a_checkpoint_that_lacks_nothing_that_is_needed(tmp_path, changes, training):
    check_resumable(saved(tmp_path, **changes), Config({**TRAINING, **training}))


def test_published_weights_are_refused(tmp_path):
    pytest.importorskip('safetensors')
    path, _ = publish(WHOLE, tmp_path / 'net.safetensors')
    with pytest.raises(LaunchError, match='does not hold the log history.* Published'):
        check_resumable(str(path), Config(TRAINING))
