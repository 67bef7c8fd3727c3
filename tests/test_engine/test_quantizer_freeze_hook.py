"""Clips and BatchNorm statistics that do not move: over optimizers, validation, EMA, resuming and
ranks.
"""

import logging
from functools import partial

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from toy_training import COMPRESSION, ToySegmentor, run_jobs, toy_runner

from mmwcc.engine.hooks import QuantizerFreezeHook

FREEZE = dict(type='mmwcc.QuantizerFreezeHook', clip_alpha=6, batch_norm=4)
SGD = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=0.1))
ADAM = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.01, weight_decay=0.1))
STATISTICS = ('running_mean', 'running_var', 'num_batches_tracked')


def runner_of(tmp_path, freeze=FREEZE, optim_wrapper=SGD, hooks=None, **kwargs):
    hooks = dict(compression_schedule=None, freeze=freeze, **(hooks or {}))
    return toy_runner(tmp_path, hooks=hooks, optim_wrapper=optim_wrapper, **kwargs)


def checkpoint(folder, iteration, key='state_dict', by_epoch=False):
    name = f'{"epoch" if by_epoch else "iter"}_{iteration}.pth'
    return torch.load(folder / name, weights_only=False)[key]


def moved(one, other, *suffixes):
    """Tell which of the entries with these endings differ by any bit; all of them or none must."""
    keys = [key for key in one if key.endswith(suffixes)]
    assert keys
    return [key for key in keys if not torch.equal(one[key], other[key])]


def assert_moments(states, clips=6, norms=4):
    """Compare the states after each iteration with the first one frozen, counted from 0."""
    last = max(states)
    for i in range(1, last):
        assert bool(moved(states[i], states[i + 1], 'clip_alpha')) == (i + 1 <= clips), i
        assert bool(moved(states[i], states[i + 1], *STATISTICS)) == (i + 1 <= norms), i
        assert (
            len(moved(states[i], states[i + 1], 'norm1.weight', 'point.weight', 'spatial.weight'))
            == 3
        ), i


@pytest.mark.parametrize(
    'optim_wrapper',
    [SGD, ADAM, dict(SGD, accumulative_counts=1, clip_grad=dict(max_norm=1))],
    ids=['momentum', 'adamw', 'clip_grad'],
)
def test_frozen_bit_for_bit(tmp_path, optim_wrapper):
    runner = runner_of(tmp_path, optim_wrapper=optim_wrapper, val_interval=3)
    runner.train()
    assert_moments({i: checkpoint(tmp_path, i) for i in range(1, 13)})


def test_epochs(tmp_path):
    freeze = dict(type='mmwcc.QuantizerFreezeHook', clip_alpha=2, batch_norm=1, by_epoch=True)
    runner_of(tmp_path, freeze, by_epoch=True, val_interval=1).train()
    assert_moments(
        {i: checkpoint(tmp_path, i, by_epoch=True) for i in range(1, 5)}, clips=2, norms=1
    )


def test_only_one_of_them(tmp_path):
    runner_of(tmp_path, dict(type='mmwcc.QuantizerFreezeHook', batch_norm=2), length=5).train()
    assert_moments({i: checkpoint(tmp_path, i) for i in range(1, 6)}, clips=99, norms=2)


def test_accumulated_gradients(tmp_path):
    """Clips that were frozen between two steps of the optimizer do not take the step that was begun
    before.
    """
    runner_of(tmp_path, dict(FREEZE, clip_alpha=5), dict(SGD, accumulative_counts=2)).train()
    states = {i: checkpoint(tmp_path, i) for i in range(1, 13)}
    assert moved(states[3], states[4], 'clip_alpha')
    assert not moved(states[4], states[12], 'clip_alpha')


@MODELS.register_module(force=True)
class TakingTurns(ToySegmentor):
    """A step for each of several optimizers, which mmengine leaves to the model."""

    def train_step(self, data, optim_wrapper):
        for wrapper in optim_wrapper.values():
            with wrapper.optim_context(self):
                losses = self(**self.data_preprocessor(data, True), mode='loss')
            loss, log_vars = self.parse_losses(losses)
            wrapper.update_params(loss)
        return log_vars


@OPTIM_WRAPPER_CONSTRUCTORS.register_module(force=True)
class ClipsApart:
    """Clips are stepped by an optimizer of their own."""

    def __init__(self, optim_wrapper_cfg, paramwise_cfg=None):
        self.kind = optim_wrapper_cfg['type']

    def __call__(self, model):
        apart = {True: [], False: []}
        for name, parameter in model.named_parameters():
            apart[name.endswith('clip_alpha')].append(parameter)
        optimizers = dict(
            weights=torch.optim.SGD(apart[False], lr=0.05, momentum=0.9, weight_decay=0.1),
            clips=torch.optim.AdamW(apart[True], lr=0.01, weight_decay=0.1),
        )
        return OptimWrapperDict(
            **{
                name: OPTIM_WRAPPERS.build(
                    dict(type=self.kind, optimizer=optimizer, clip_grad=dict(max_norm=1e9))
                )
                for name, optimizer in optimizers.items()
            }
        )


@pytest.fixture
def amp_on_cpu(monkeypatch):
    """Let AmpOptimWrapper, which insists on an accelerator, scale losses on the CPU."""
    module = 'mmengine.optim.optimizer.amp_optimizer_wrapper'
    monkeypatch.setattr(f'{module}.is_cuda_available', lambda: True)
    monkeypatch.setattr(f'{module}.GradScaler', partial(torch.amp.GradScaler, 'cpu'))


@pytest.mark.parametrize('kind', ['OptimWrapper', 'AmpOptimWrapper'])
def test_several_optimizers(tmp_path, kind, amp_on_cpu):
    model = dict(type='mmwcc.CompressedModel', task_type='TakingTurns', compression=COMPRESSION)
    runner = runner_of(
        tmp_path, optim_wrapper=dict(type=kind, constructor='ClipsApart'), model=model
    )
    runner.train()
    assert_moments({i: checkpoint(tmp_path, i) for i in range(1, 13)})
    assert not any(
        wrapper.optimizer._optimizer_step_pre_hooks for wrapper in runner.optim_wrapper.values()
    )


@pytest.mark.parametrize(
    'extra', [{}, dict(clip_grad=dict(max_norm=1.0))], ids=['plain', 'clip_grad']
)
@pytest.mark.parametrize('wrapper', [SGD, ADAM], ids=['momentum', 'adamw'])
def test_mixed_precision(tmp_path, wrapper, extra, amp_on_cpu):
    """Clips stay in float32 and frozen while autocast computes in bfloat16 and losses are
    scaled.
    """
    runner = runner_of(
        tmp_path, optim_wrapper=dict(wrapper, type='AmpOptimWrapper', dtype='bfloat16', **extra)
    )
    seen = set()
    runner.model.norm2.register_forward_pre_hook(lambda module, args: seen.add(args[0].dtype))
    runner.train()
    assert seen == {torch.bfloat16} and runner.optim_wrapper.loss_scaler.get_scale() > 1
    states = {i: checkpoint(tmp_path, i) for i in range(1, 13)}
    assert_moments(states)
    assert {states[12][key].dtype for key in states[12] if key.endswith('clip_alpha')} == {
        torch.float32
    }


class Gradients(Hook):
    """Compare the norm that gradient clipping sees with that of all gradients but those of the
    clips.
    """

    def before_train(self, runner):
        self.norms, self.clips = [], []
        parameters = dict(runner.model.named_parameters())
        is_clip = {name: name.endswith('clip_alpha') for name in parameters}

        def note(optimizer, args, kwargs):
            self.clips.append(
                any(
                    parameters[name].grad is not None and parameters[name].grad.any()
                    for name in parameters
                    if is_clip[name]
                )
            )
            self.norms.append(
                torch.stack(
                    [
                        parameter.grad.norm()
                        for name, parameter in parameters.items()
                        if not is_clip[name]
                    ]
                )
                .norm()
                .item()
            )

        runner.optim_wrapper.optimizer.register_step_pre_hook(note)


def test_frozen_clips_take_no_part_in_gradient_clipping(tmp_path):
    clip_grad = dict(max_norm=1e9)
    runner = runner_of(tmp_path, optim_wrapper=dict(SGD, clip_grad=clip_grad))
    gradients = Gradients()
    runner.register_hook(gradients)
    runner.train()
    clipped = runner.message_hub.get_scalar('train/grad_norm').data[0].tolist()
    assert gradients.clips == [True] * 6 + [False] * 6
    assert clipped[6:] == pytest.approx(gradients.norms[6:], rel=1e-6)
    assert all(a > b for a, b in zip(clipped[:6], gradients.norms[:6], strict=True))


class Modes(Hook):
    """Note which BatchNorm layers run in evaluation mode."""

    priority = 'LOWEST'

    def __init__(self):
        self.evaluating, self.training = [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        model = runner.model
        self.evaluating.append((not model.norm1.training, not model.norm2.training))
        self.training.append(model.training and model.dropout.training)


@pytest.mark.parametrize('by_epoch', [False, True])
def test_only_batch_norm_is_put_into_evaluation_mode(tmp_path, by_epoch):
    runner, modes = (
        runner_of(tmp_path, by_epoch=by_epoch, val_interval=1 if by_epoch else 3),
        Modes(),
    )
    runner.register_hook(modes)
    runner.train()
    assert modes.evaluating == [(False, False)] * 4 + [(True, True)] * 8
    assert all(modes.training)


@pytest.mark.parametrize('update_buffers', [False, True])
def test_averaged_model_is_frozen_too(tmp_path, update_buffers):
    ema = dict(type='EMAHook', update_buffers=update_buffers, momentum=0.1)
    runner_of(tmp_path, custom_hooks=[ema], val_interval=4).train()
    ours = {i: checkpoint(tmp_path, i) for i in (6, 7, 8, 12)}
    trained = {
        i: {
            key.removeprefix('module.'): value
            for key, value in checkpoint(tmp_path, i, 'ema_state_dict').items()
        }
        for i in (6, 7, 8, 12)
    }
    assert moved(ours[6], trained[6], 'clip_alpha')
    for i in (7, 8, 12):
        assert not moved(ours[i], trained[i], 'clip_alpha') and not moved(
            ours[i], ours[12], 'clip_alpha'
        )
        assert not moved(ours[i], trained[i], *STATISTICS[:2]) and not moved(
            ours[i], ours[12], *STATISTICS[:2]
        )
    assert moved(ours[8], ours[12], 'point.weight')


@pytest.mark.parametrize('iteration', [3, 5, 9])
def test_resumed_run_is_the_uninterrupted_one(tmp_path, iteration):
    runner_of(tmp_path / 'whole').train()
    path = tmp_path / 'whole' / f'iter_{iteration}.pth'
    runner_of(tmp_path / 'part', resume=True, load_from=str(path)).train()
    whole, part = checkpoint(tmp_path / 'whole', 12), checkpoint(tmp_path / 'part', 12)
    assert not moved(whole, part, '')


def test_two_ranks(tmp_path):
    """DistributedDataParallel without find_unused_parameters, whose frozen parameters must still
    have gradients.
    """
    overrides = dict(
        work_dir=str(tmp_path / 'ranks'), hooks=dict(compression_schedule=None, freeze=FREEZE)
    )
    run_jobs(tmp_path, [dict(overrides=dict(overrides, optim_wrapper=SGD), ranks=2)])
    assert_moments({i: checkpoint(tmp_path / 'ranks', i) for i in range(1, 13)})
    ranks = [torch.load(tmp_path / 'ranks' / f'rank{rank}.pth') for rank in (0, 1)]
    assert not moved(*ranks, 'weight', 'clip_alpha')


def test_quantizers_that_are_switched_on_later_are_calibrated_and_kept(tmp_path, caplog):
    schedule = dict(
        type='mmwcc.CompressionScheduleHook', act_bits=dict(type='step', steps=[(0, 32), (8, 4)])
    )
    runner = toy_runner(
        tmp_path, hooks=dict(compression_schedule=schedule, freeze=FREEZE), optim_wrapper=SGD
    )
    runner.logger.setLevel(logging.INFO)
    runner.logger.addHandler(caplog.handler)
    runner.train()
    states = {i: checkpoint(tmp_path, i) for i in (8, 9, 12)}
    assert len(moved(states[8], states[9], 'act_quant.clip_alpha')) == 2
    assert not moved(states[9], states[12], 'clip_alpha')
    assert (
        'clip_alpha of 4 modules is frozen from iter 6 on; 2 of them learn their clip from their '
        'first batch' in caplog.text
    )


def test_training_leaves_no_hooks_behind(tmp_path):
    runner = runner_of(tmp_path, length=8)
    runner.train()
    assert not any(parameter._backward_hooks for parameter in runner.model.parameters())
    assert not runner.optim_wrapper.optimizer._optimizer_step_pre_hooks


def test_moment_after_the_end(tmp_path, caplog):
    runner = runner_of(tmp_path, length=5)
    runner.logger.addHandler(caplog.handler)
    runner.train()
    assert 'clip_alpha is to be frozen from iter 6 on, but training ends at 5' in caplog.text
    assert 'batch_norm is to be frozen' not in caplog.text


@pytest.mark.parametrize(
    ('freeze', 'kwargs', 'message'),
    [
        (
            FREEZE,
            dict(compression=None),
            'clip_alpha needs a model with quantizers, got ToySegmentor without',
        ),
        (
            dict(FREEZE, by_epoch=True),
            {},
            'by_epoch must be False with an iteration-based training loop, got True',
        ),
    ],
)
def test_refusals_when_training_starts(tmp_path, freeze, kwargs, message):
    runner = runner_of(tmp_path, freeze, **{'compression': COMPRESSION, **kwargs})
    with pytest.raises(RuntimeError, match=message):
        runner.train()


@pytest.mark.parametrize(
    ('kwargs', 'error', 'message'),
    [
        (dict(), ValueError, 'at least one of clip_alpha and batch_norm must be given'),
        (dict(clip_alpha=True), TypeError, 'clip_alpha must be an integer or None, got True'),
        (dict(batch_norm=0.5), TypeError, 'batch_norm must be an integer or None, got 0.5'),
        (dict(batch_norm=-1), ValueError, 'batch_norm must be at least 0, got -1'),
        (dict(clip_alpha=1, by_epoch=1), TypeError, 'by_epoch must be True or False, got 1'),
    ],
)
def test_refusals(kwargs, error, message):
    with pytest.raises(error, match=message):
        QuantizerFreezeHook(**kwargs)
