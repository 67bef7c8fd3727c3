"""Clips from several batches before training."""

import pytest

pytest.importorskip('mmengine')
import torch  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402
from toy_training import COMPRESSION, ToyImages, run_jobs, toy_runner  # noqa: E402

from mmwcc.engine.hooks import CalibrationHook  # noqa: E402

OFF = dict(compression_schedule=None)


def state_of(runner, part):
    return {
        name: value.clone() for name, value in runner.model.state_dict().items() if part in name
    }


class Watch(CalibrationHook):
    """Keep the clips as they are when training begins."""

    def before_train(self, runner):
        super().before_train(runner)
        self.clips = state_of(runner, '_quant.')


def train(tmp_path, hook, name='run', **kwargs):
    kwargs.setdefault('hooks', OFF)
    runner = toy_runner(tmp_path / name, length=kwargs.pop('length', 2), **kwargs)
    if hook is not None:
        runner.register_hook(hook)
    runner.train()
    return runner


@pytest.mark.parametrize('by_epoch', [False, True])
def test_clips_are_those_of_several_batches(tmp_path, by_epoch):
    hooks = [
        Watch(num_batches=batches, method='percentile', percentile=100.0) for batches in (1, 20)
    ]
    for hook in hooks:
        train(tmp_path, hook, name=str(hook.num_batches), by_epoch=by_epoch, length=1)
    one, all_of_them = (hook.clips['point.act_quant.clip_alpha'] for hook in hooks)
    assert all_of_them > one > 0  # 20 is more than there are: the whole data
    assert all(
        hook.clips[key] for hook in hooks for key in hook.clips if key.endswith('.initialized')
    )


def test_training_sees_the_same_batches(tmp_path, monkeypatch):
    seen = []
    original = ToyImages.__getitem__

    def note(self, index):
        sample = original(self, index)
        seen.append(sample['inputs'])
        return sample

    monkeypatch.setattr(ToyImages, '__getitem__', note)
    train(tmp_path, None, name='without')
    expected = seen[:]
    seen.clear()
    hook = CalibrationHook(num_batches=2)
    train(tmp_path, hook, name='with')
    assert len(expected) == 6 and len(seen) == 12
    assert all(torch.equal(a, b) for a, b in zip(expected, seen[6:], strict=True))


def test_resuming_does_not_calibrate_again(tmp_path, caplog):
    train(tmp_path, CalibrationHook(), length=2)
    saved = torch.load(tmp_path / 'run' / 'iter_2.pth')['state_dict']
    hook = Watch()
    train(tmp_path, hook, length=4, resume=True)
    assert all(torch.equal(hook.clips[name], saved[name]) for name in hook.clips)


@pytest.mark.parametrize('again', [False, True])
def test_a_calibrated_checkpoint(tmp_path, again):
    train(tmp_path, CalibrationHook(), name='first')
    saved = torch.load(tmp_path / 'first' / 'iter_2.pth')['state_dict']
    hook = Watch(method='percentile', percentile=50.0, again=again)
    train(tmp_path, hook, name='second', load_from=str(tmp_path / 'first' / 'iter_2.pth'))
    same = [
        torch.equal(hook.clips[name], saved[name])
        for name in hook.clips
        if name.endswith('clip_alpha')
    ]
    assert not any(same) if again else all(same)


def test_quantizers_that_a_schedule_has_off_are_left(tmp_path):
    schedule = dict(
        type='mmwcc.CompressionScheduleHook', act_bits=dict(type='step', steps=[(0, 32), (1, 8)])
    )
    hook = Watch()
    runner = train(tmp_path, hook, hooks=dict(compression_schedule=schedule))
    assert (
        not hook.clips['point.act_quant.initialized']
        and hook.clips['point.weight_quant.initialized']
    )
    assert runner.model.point.act_quant.initialized  # from the batch that switched it on


def test_it_is_registered_and_logs(tmp_path, caplog):
    hooks = dict(OFF, calibration=dict(type='mmwcc.CalibrationHook', num_batches=2))
    runner = toy_runner(tmp_path, length=1, hooks=hooks)
    messages = []
    runner.logger.info = messages.append
    runner.train()
    begins = messages.index('CalibrationHook: 2 batches')
    assert 'CalibrationHook: 4 clips from 2 batches' in messages[begins:]


def test_two_ranks_are_one_process_over_the_same_images(tmp_path):
    """Every image counts once, wherever it is seen; a learning rate of 0 keeps the clips as they
    begin.
    """

    def job(name, batch_size, ranks):
        loader = dict(
            batch_size=batch_size,
            num_workers=0,
            dataset=dict(type='ToyImages', size=12, augment=False),
            sampler=dict(type='InfiniteSampler'),
        )
        still = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.0))
        hooks = dict(OFF, calibration=dict(type='mmwcc.CalibrationHook', num_batches=1))
        return dict(
            ranks=ranks,
            overrides=dict(
                work_dir=str(tmp_path / name),
                length=1,
                hooks=hooks,
                train_dataloader=loader,
                optim_wrapper=still,
                param_scheduler=None,
            ),
        )

    run_jobs(tmp_path, [job('two', 6, 2), job('one', 12, 1)])
    first, second, one = (
        {key: value for key, value in torch.load(tmp_path / file).items() if '_quant.' in key}
        for file in ('two/rank0.pth', 'two/rank1.pth', 'one/rank0.pth')
    )
    assert all(one[key] for key in one if key.endswith('.initialized')) and len(one) == 12
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    # Later layers see what earlier ones rounded with the clips of one rank.
    torch.testing.assert_close(first, one, rtol=0.06, atol=0)
    assert torch.equal(first['point.act_quant.clip_alpha'], one['point.act_quant.clip_alpha'])


@pytest.mark.parametrize(('images', 'batches'), [(12, [3, 1]), (7, [3]), (2, [1])])
def test_ranks_share_the_images(monkeypatch, images, batches):
    """Equally, for a rank with a batch more would wait for the others, and no image more often than
    that takes.
    """
    seen = []
    for rank in range(3):
        monkeypatch.setattr(
            'mmwcc.engine.hooks.calibration_hook.get_dist_info', lambda rank=rank: (rank, 3)
        )
        loader = CalibrationHook._batches(DataLoader(range(images), 3))
        assert [len(batch) for batch in loader] == batches
        seen += [image for batch in loader for image in batch.tolist()]
    assert sorted(seen) == sorted([*range(images), *range(3 * sum(batches) - images)])


def test_nothing_to_calibrate(tmp_path):
    unquantized = {**COMPRESSION, 'weight_quant': None, 'act_quant': None}
    with pytest.raises(ValueError, match='must have a quantizer with less than 32 bits'):
        train(tmp_path, CalibrationHook(), compression=unquantized)


@pytest.mark.parametrize(
    'arguments, error, message',
    [
        (dict(num_batches=1.5), TypeError, 'num_batches must be an integer, got 1.5'),
        (dict(num_batches=True), TypeError, 'num_batches must be an integer, got True'),
        (dict(num_batches=0), ValueError, 'num_batches must be at least 1, got 0'),
        (
            dict(method='kl'),
            ValueError,
            "method must be one of mse, percentile, lsq or None, got 'kl'",
        ),
        (dict(percentile=101), ValueError, r'percentile must be in \(0, 100\], got 101'),
        (dict(again=1), TypeError, 'again must be True or False, got 1'),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=f'CalibrationHook: {message}'):
        CalibrationHook(**arguments)
