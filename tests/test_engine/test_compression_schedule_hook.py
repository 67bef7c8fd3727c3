"""The schedule hook in real runners: what holds at each iteration, in validation, in checkpoints
and after loading.
"""

import pytest
import torch
from mmengine.hooks import Hook
from toy_training import COMPRESSION, KEEP_RATIO, QUANT_LAYER, WCC_LAYER, toy_runner

from mmwcc.engine.hooks import CompressionScheduleHook
from mmwcc.model_tree.compressed import compressed_layers

SCHEDULE = dict(
    type='mmwcc.CompressionScheduleHook',
    keep_ratio=KEEP_RATIO,
    act_bits=dict(type='step', steps=[(0, 32), (3, 8), (7, 4)]),
)


class Probe(Hook):
    """Note the state of both layers while the model runs."""

    priority = 'LOWEST'

    def __init__(self):
        self.train, self.val = [], []

    def state(self, runner):
        layers = compressed_layers(runner.model)
        return (
            layers[WCC_LAYER].keep_ratio,
            layers[WCC_LAYER].act_quant.bits,
            layers[QUANT_LAYER].act_quant.bits,
            layers[WCC_LAYER].weight_quant.bits,
        )

    def after_train_iter(self, runner, *args, **kwargs):
        self.train.append(self.state(runner))

    def after_val_iter(self, runner, *args, **kwargs):
        self.val.append((runner.iter, *self.state(runner)))


def train(tmp_path, schedule=SCHEDULE, **kwargs):
    hooks = dict(compression_schedule=schedule, random_state=None, **kwargs.pop('hooks', {}))
    runner = toy_runner(tmp_path, hooks=hooks, **kwargs)
    probe = Probe()
    runner.register_hook(probe)
    return runner, probe


EXPECTED = (
    [(1.0, 32, 32, 4)] * 3
    + [(1.0, 8, 8, 4)]
    + [(0.5, 8, 8, 4)] * 3
    + [(0.5, 4, 4, 4)]
    + [(0.25, 4, 4, 4)] * 4
)


def test_states_at_each_iteration_and_in_validation(tmp_path):
    runner, probe = train(tmp_path, val_interval=3)
    runner.train()
    assert probe.train == EXPECTED
    # Validation after an iteration sees the state that iteration was trained in.
    assert sorted(set(probe.val)) == [(i, *EXPECTED[i - 1]) for i in (3, 6, 9, 12)]
    assert runner.message_hub.get_scalar('train/compression/keep_ratio').data[0].tolist() == [
        1.0,
        0.5,
        0.25,
    ]
    assert runner.message_hub.get_scalar('train/compression/act_bits').data[0].tolist() == [
        32,
        8,
        4,
    ]


def test_epochs(tmp_path):
    schedule = dict(
        type='mmwcc.CompressionScheduleHook',
        by_epoch=True,
        keep_ratio=dict(type='step', steps=[(0, 1.0), (2, 0.25)]),
    )
    runner, probe = train(tmp_path, schedule, by_epoch=True, length=3, val_interval=1)
    runner.train()
    assert [state[0] for state in probe.train] == [1.0] * 6 + [0.25] * 3
    assert [state[:2] for state in probe.val] == [(3, 1.0)] * 2 + [(6, 1.0)] * 2 + [(9, 0.25)] * 2


def test_iterations_in_an_epoch_based_loop(tmp_path):
    runner, probe = train(tmp_path, by_epoch=True, val_interval=1)
    runner.train()
    assert probe.train == EXPECTED


def test_rules_survive(tmp_path):
    compression = dict(
        COMPRESSION, rules=[dict(pattern='point', keep_ratio=0.4, act_quant=dict(bits=6))]
    )
    runner, probe = train(tmp_path, compression=compression)
    runner.train()
    assert [state[:3] for state in probe.train][-1] == (0.4, 6, 4)
    assert max(state[0] for state in probe.train) == 1.0


def test_log_lines(tmp_path, log):
    runner, _ = train(tmp_path)
    messages = log(runner)
    runner.train()
    assert [line for line in messages.messages if line.startswith('compression schedule at')] == [
        'compression schedule at iter 0: keep_ratio 1 on 1 layers',
        'compression schedule at iter 0: act_bits 32 on 2 layers',
        'compression schedule at iter 3: act_bits 32 -> 8 on 2 layers',
        'compression schedule at iter 4: keep_ratio 1 -> 0.5 on 1 layers',
        'compression schedule at iter 7: act_bits 8 -> 4 on 2 layers',
        'compression schedule at iter 8: keep_ratio 0.5 -> 0.25 on 1 layers',
    ]


def test_smooth_schedules_are_logged_in_few_lines(tmp_path, log):
    ramp = dict(type='linear', begin=0, end=200, start=1.0, stop=0.25)
    hook = CompressionScheduleHook(keep_ratio=ramp)
    runner, _ = train(tmp_path)
    messages = log(runner)
    for t in range(300):
        hook._apply(runner, t)
    lines = [line for line in messages.messages if 'keep_ratio' in line]
    assert 15 <= len(lines) <= 22 and lines[-1].startswith('compression schedule at iter 200:')
    assert len(runner.message_hub.get_scalar('train/compression/keep_ratio').data[0]) == 201


@pytest.mark.parametrize('iteration', [2, 4, 9])
def test_resumed_schedule_goes_on(tmp_path, iteration):
    runner, _ = train(tmp_path)
    runner.train()
    resumed, probe = train(tmp_path, resume=True, load_from=str(tmp_path / f'iter_{iteration}.pth'))
    resumed.train()
    assert probe.train == EXPECTED[iteration:]


def test_mid_schedule_checkpoint_is_tested_as_it_was_trained(tmp_path, log):
    runner, _ = train(tmp_path, length=9)
    runner.train()
    tester, probe = train(tmp_path / 'test', load_from=str(tmp_path / 'iter_4.pth'))
    messages = log(tester)
    tester.test()
    assert probe.state(tester) == EXPECTED[3] and probe.state(runner) == EXPECTED[8]
    assert 'must compress as the checkpoint records' not in messages.text
    # In one process too: what was trained further is set back for an earlier checkpoint.
    runner.load_checkpoint(str(tmp_path / 'iter_4.pth'))
    assert probe.state(runner) == EXPECTED[3]


def test_best_checkpoint_records_the_state_it_was_measured_in(tmp_path):
    best = dict(
        type='CheckpointHook', interval=12, by_epoch=False, save_best='evaluations', rule='greater'
    )
    runner, _ = train(tmp_path, length=3, val_interval=3, hooks=dict(checkpoint=best))
    runner.train()
    stamp = torch.load(tmp_path / 'best_evaluations_iter_3.pth', weights_only=False)['meta'][
        'mmwcc'
    ]
    assert stamp['iter'] == 2 and stamp['layers'][QUANT_LAYER]['act_bits'] == 32


def test_ema_evaluates_in_the_scheduled_state(tmp_path):
    runner, probe = train(tmp_path, val_interval=6, custom_hooks=[dict(type='EMAHook')])
    runner.train()
    assert sorted(set(probe.val)) == [(i, *EXPECTED[i - 1]) for i in (6, 12)]


def test_schedule_of_a_quantity_no_layer_has(tmp_path):
    runner, _ = train(tmp_path, compression={**COMPRESSION, 'act_quant': None})
    with pytest.raises(
        RuntimeError, match='a schedule of act_bits needs layers that have it, got none among 2'
    ):
        runner.train()


def test_epochs_of_an_iteration_based_loop(tmp_path):
    runner, _ = train(tmp_path, dict(SCHEDULE, by_epoch=True))
    with pytest.raises(
        RuntimeError, match='by_epoch must be False with an iteration-based training loop, got True'
    ):
        runner.train()


def test_warnings_of_a_schedule_that_does_not_arrive(tmp_path, log):
    keep_ratio = dict(type='step', steps=[(0, 1.0), (4, 0.5)])
    runner, _ = train(
        tmp_path, dict(type='mmwcc.CompressionScheduleHook', keep_ratio=keep_ratio), length=2
    )
    messages = log(runner)
    runner.train()
    assert (
        'keep_ratio ends at 0.5, above what 1 layers were built with (point: 0.25)' in messages.text
    )
    assert 'keep_ratio reaches 0.5 at iter 4, but training ends at 2' in messages.text


ROWS = {
    **COMPRESSION,
    'pointwise': dict(
        type='mmwcc.WaveletCompressedConv2d',
        keep_ratio=1.0,
        act_quant=dict(type='mmwcc.EnergyActQuantizer', bits=1.5, widths=[0, 3, 4, 5, 6, 8]),
    ),
}


def test_mean_bits_follow_a_schedule_with_averaged_weights(tmp_path):
    act_bits = dict(type='step', steps=[(0, 32), (3, 8), (6, 4), (8, 1.5)])
    schedule = dict(type='mmwcc.CompressionScheduleHook', act_bits=act_bits)
    runner, probe = train(
        tmp_path,
        schedule,
        compression={**ROWS, 'other': None},
        length=10,
        val_interval=5,
        custom_hooks=[dict(type='EMAHook')],
    )
    probe.state = lambda runner: compressed_layers(runner.model)[WCC_LAYER].act_quant.bits
    probe.after_val_iter = lambda runner, *_, **__: probe.val.append(probe.state(runner))
    runner.train()
    assert probe.train == [32] * 3 + [8] * 3 + [4] * 2 + [1.5] * 2
    assert sorted(set(probe.val)) == [1.5, 8]
    stamp = torch.load(tmp_path / 'iter_10.pth', weights_only=False)['meta']['mmwcc']
    assert stamp['layers'][WCC_LAYER]['act_bits'] == 1.5
    assert stamp['layers'][WCC_LAYER]['widths'] == [0, 3, 4, 5, 6, 8]


@pytest.mark.parametrize(
    'compression, value, message',
    [
        (ROWS, 16, r'got 16, which point cannot have\. EnergyActQuantizer: bits must be in \(0, 8'),
        (COMPRESSION, 4.5, r'got 4\.5, which point cannot have.*: bits must be an integer'),
    ],
    ids=['too many for rows', 'a fraction for one width'],
)
def test_bits_that_a_layer_cannot_have_are_refused_before_training(
    tmp_path, compression, value, message
):
    act_bits = dict(type='step', steps=[(0, 32), (3, value)])
    schedule = dict(type='mmwcc.CompressionScheduleHook', act_bits=act_bits)
    runner, probe = train(tmp_path, schedule, compression=compression)
    with pytest.raises((TypeError, ValueError), match=message):
        runner.train()
    assert not probe.train


@pytest.mark.parametrize(
    ('kwargs', 'error', 'message'),
    [
        (dict(), ValueError, 'at least one of keep_ratio, weight_bits and act_bits must be given'),
        (
            dict(by_epoch=1, keep_ratio=KEEP_RATIO),
            TypeError,
            'by_epoch must be True or False, got 1',
        ),
        (dict(keep_ratio=0.5), TypeError, 'the schedule of keep_ratio must be a dict, got 0.5'),
        (
            dict(weight_bits=KEEP_RATIO),
            ValueError,
            'StepSchedule of weight_bits: the value of a step must be an integer',
        ),
    ],
)
def test_refusals(kwargs, error, message):
    with pytest.raises(error, match=message):
        CompressionScheduleHook(**kwargs)
