"""A run that is killed with SIGKILL and resumed is, bit for bit, the run that is not."""

import logging
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from toy_training import run_jobs, toy_runner

from mmwcc.engine.hooks import random_state_hook
from mmwcc.engine.hooks.random_state_hook import get_random_state, set_random_state

# What ends each killed run; checkpoints are written every 2 iterations and, as the best, within
# each validation (every 3 iterations), or after each of the 4 epochs of 3 iterations.
ITER_KILLS = {
    'after a checkpoint': ['train', 4],
    'between checkpoints': ['train', 9],
    'in validation': ['val', 6],
    'after a checkpoint written in validation': ['train', 7],
}
EPOCH_KILLS = {
    'within an epoch': ['train', 5],
    'in validation': ['val', 6],
    'at the end of an epoch': ['train', 9],
}
ITER = dict(val_interval=3)
EPOCH = dict(val_interval=1, by_epoch=True)
BEST = dict(
    checkpoint=dict(
        type='CheckpointHook', interval=2, by_epoch=False, save_best='evaluations', rule='greater'
    )
)


def killed_and_resumed(settings, kill, **hooks):
    settings = dict(settings, hooks={**settings.get('hooks', {}), **hooks})
    return [
        dict(overrides=settings, kill=kill),
        dict(overrides=dict(settings, resume=True), kill=None),
    ]


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Run everything in one process that forks, and return the folders by name."""
    folder = tmp_path_factory.mktemp('runs')
    iter_based = dict(ITER, hooks=BEST)
    jobs = {
        'iter': [dict(overrides=iter_based, kill=None)],
        'epoch': [dict(overrides=EPOCH, kill=None)],
        'iter without validation': [dict(overrides={}, kill=None)],
        'iter without hook': killed_and_resumed(
            iter_based, ITER_KILLS['between checkpoints'], random_state=None
        ),
        'epoch without hook': killed_and_resumed(
            EPOCH, EPOCH_KILLS['within an epoch'], random_state=None
        ),
    }
    jobs.update(
        {f'iter {name}': killed_and_resumed(iter_based, kill) for name, kill in ITER_KILLS.items()}
    )
    jobs.update(
        {f'epoch {name}': killed_and_resumed(EPOCH, kill) for name, kill in EPOCH_KILLS.items()}
    )
    for name, steps in jobs.items():
        for job in steps:
            job['overrides'] = dict(job['overrides'], work_dir=str(folder / name))
    run_jobs(folder, [job for steps in jobs.values() for job in steps])
    return folder


def differences(one, other, path=''):
    """Return where two nested states differ, exactly."""
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [path]
    if isinstance(one, dict):
        if list(one) != list(other):
            return [f'{path} keys']
        return [
            where for key in one for where in differences(one[key], other[key], f'{path}.{key}')
        ]
    if isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return [f'{path} length']
        pairs = enumerate(zip(one, other, strict=True))
        return [where for i, (a, b) in pairs for where in differences(a, b, f'{path}[{i}]')]
    return [] if one == other else [path]


def last(folder, loop):
    return torch.load(
        folder / ('iter_12.pth' if loop == 'iter' else 'epoch_4.pth'), weights_only=False
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ('loop', 'kill'),
    [*(('iter', kill) for kill in ITER_KILLS), *(('epoch', kill) for kill in EPOCH_KILLS)],
)
def test_killed_and_resumed_run_is_the_uninterrupted_one(runs, loop, kill):
    whole, part = last(runs / loop, loop), last(runs / f'{loop} {kill}', loop)
    for key in ('state_dict', 'optimizer', 'param_schedulers', 'mmwcc_random_state'):
        assert not differences(whole[key], part[key]), key
    assert whole['meta']['mmwcc'] == part['meta']['mmwcc']


@pytest.mark.slow
@pytest.mark.parametrize('loop', ['iter', 'epoch'])
def test_without_the_hook_the_resumed_run_differs(runs, loop):
    whole, part = last(runs / loop, loop), last(runs / f'{loop} without hook', loop)
    assert differences(whole['state_dict'], part['state_dict'])


@pytest.mark.slow
def test_training_does_not_depend_on_validation(runs):
    whole, without = last(runs / 'iter', 'iter'), last(runs / 'iter without validation', 'iter')
    assert not differences(whole['state_dict'], without['state_dict'])


@pytest.fixture(scope='module')
def two_iterations(tmp_path_factory):
    folder = tmp_path_factory.mktemp('two')
    toy_runner(folder, length=2).train()
    return str(folder / 'iter_2.pth')


def edited(folder, path, edit):
    checkpoint = torch.load(path, weights_only=False)
    edit(checkpoint)
    torch.save(checkpoint, folder / 'edited.pth')
    return str(folder / 'edited.pth')


def test_states_round_trip_and_load_with_weights_only(tmp_path):
    random.gauss(0, 1), np.random.normal()  # leave half of a pair of normal numbers in both caches
    torch.save(get_random_state(), tmp_path / 'state.pth')
    draws = [
        random.gauss(0, 1),
        random.random(),
        np.random.normal(),
        np.random.rand(),
        torch.rand(3).tolist(),
    ]
    set_random_state(torch.load(tmp_path / 'state.pth', weights_only=True))
    assert draws == [
        random.gauss(0, 1),
        random.random(),
        np.random.normal(),
        np.random.rand(),
        torch.rand(3).tolist(),
    ]


def test_loading_without_resuming_leaves_the_states_alone(tmp_path):
    toy_runner(tmp_path / 'first', length=2).train()
    states = []

    def first_state(load_from):
        runner = toy_runner(tmp_path / 'second', length=3, load_from=load_from)
        hook = runner.hooks[0]
        before = hook.before_train_iter
        hook.before_train_iter = lambda *args, **kwargs: (
            states.append(get_random_state()),
            before(*args, **kwargs),
        )
        runner.train()

    first_state(None)
    first_state(str(tmp_path / 'first/iter_2.pth'))
    assert not differences(states[0], states[3])


def test_states_are_restored_after_a_late_creation_of_the_iterator():
    class LateIterator:
        """Creates the iterator of its data loader, which draws, at the first batch, as newer
        mmengine does.
        """

        created = False

        def _ensure_iterator(self):
            if not self.created:
                self.created = bool(torch.rand(1) >= 0)

        def __next__(self):
            self._ensure_iterator()
            return torch.rand(1)

        def skip_iter(self, n):
            return n

    state = get_random_state()
    expected = torch.rand(1)
    iterator = random_state_hook._RestoringIterator(LateIterator(), state)
    assert iterator.skip_iter(3) == 3
    assert [next(iter(iterator)) for _ in range(2)] == [expected, expected]


@pytest.mark.parametrize('diff_rank_seed', [False, True])
def test_states_of_other_ranks(monkeypatch, diff_rank_seed):
    runner = SimpleNamespace(_randomness_cfg=dict(seed=1, diff_rank_seed=diff_rank_seed))
    saved = dict(get_random_state(), cuda=[torch.tensor([0]), torch.tensor([1])], cuda_device=1)

    def state(rank):
        torch.rand(1)  # wherever the rank happens to stand
        monkeypatch.setattr(random_state_hook, 'get_rank', lambda: rank)
        return random_state_hook._for_rank(runner, saved)

    assert not differences(state(0), saved)
    assert not differences(state(1), state(1))
    if diff_rank_seed:
        assert not torch.equal(state(1)['torch'], state(2)['torch'])
        assert not torch.equal(state(1)['torch'], saved['torch'])
    else:
        assert not differences(state(1), dict(saved, cuda=[torch.tensor([1])] * 2))


@pytest.fixture
def log(caplog):
    """Collect what mmengine's loggers say, which do not propagate."""

    def attach(runner):
        logger: MMLogger = runner.logger
        logger.addHandler(caplog.handler)
        caplog.handler.setLevel(logging.INFO)
        return caplog

    return attach


def test_resuming_from_within_an_epoch_warns(tmp_path, log):
    hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=False))
    toy_runner(tmp_path, by_epoch=True, length=1, hooks=hooks).train()
    runner = toy_runner(
        tmp_path,
        by_epoch=True,
        length=1,
        hooks=hooks,
        resume=True,
        load_from=str(tmp_path / 'iter_2.pth'),
    )
    messages = log(runner)
    runner.train()
    assert 'written within an epoch (iteration 2)' in messages.text


def test_resuming_with_another_order_of_data_warns(tmp_path, log):
    toy_runner(tmp_path, length=1).train()
    runner = toy_runner(tmp_path, length=2, resume=True, randomness=dict(seed=2))
    messages = log(runner)
    runner.train()
    assert 'Set randomness=dict(seed=1)' in messages.text


def test_resuming_without_states_warns(tmp_path, log):
    toy_runner(tmp_path, length=1, hooks=dict(random_state=None)).train()
    runner = toy_runner(tmp_path, length=2, resume=True)
    messages = log(runner)
    runner.train()
    assert 'the checkpoint has no random states' in messages.text


def without(*parts):
    def edit(checkpoint):
        for part in parts:
            del checkpoint[part]

    return edit


@pytest.mark.parametrize('hook', ['RandomStateHook', 'CompressionCheckHook'])
@pytest.mark.parametrize(
    'parts', [['optimizer'], ['param_schedulers'], ['message_hub'], ['optimizer', 'message_hub']]
)
def test_resuming_with_an_optimizer_that_starts_anew_is_refused(
    tmp_path, two_iterations, hook, parts
):
    """mmengine would go on with the momentum and the learning rate of the first iteration."""
    path = edited(tmp_path, two_iterations, without(*parts))
    hooks = (
        dict(random_state=None) if hook == 'CompressionCheckHook' else dict(compression_check=None)
    )
    with pytest.raises(
        RuntimeError,
        match=f'^{hook}: .*to resume, a checkpoint must hold .*load_from with resume=False',
    ):
        toy_runner(tmp_path / 'run', length=3, load_from=path, resume=True, hooks=hooks).train()
    toy_runner(tmp_path / 'run', length=3, load_from=path, hooks=hooks).train()


def test_schedules_that_do_not_fit_are_refused(tmp_path, two_iterations):
    poly = dict(type='PolyLR', eta_min=1e-4, begin=0, end=4)
    for schedulers, got in (
        ([dict(poly, by_epoch=True)], "'epochs'"),
        ([dict(poly, by_epoch=False)] * 2, "'iterations', 'iterations'"),
    ):
        with pytest.raises(
            RuntimeError, match=rf"got \[{got}\] in the run and \['iterations'\] in the checkpoint"
        ):
            toy_runner(
                tmp_path / 'run',
                length=3,
                load_from=two_iterations,
                resume=True,
                param_scheduler=schedulers,
            ).train()


def test_a_run_may_go_on_without_schedules(tmp_path, two_iterations):
    """mmengine skips those of the checkpoint then, and says so."""
    runner = toy_runner(
        tmp_path / 'run', length=3, load_from=two_iterations, resume=True, param_scheduler=None
    )
    runner.train()
    assert runner.iter == 3


def test_a_finished_training_needs_no_optimizer(tmp_path, two_iterations):
    path = edited(tmp_path, two_iterations, without('optimizer', 'param_schedulers'))
    runner = toy_runner(tmp_path / 'run', length=2, load_from=path, resume=True)
    runner.train()
    assert runner.iter == 2
