"""The statistics hook in real runners: what it measures and when, where it goes, and what it leaves
alone.
"""

import json
import logging
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from toy_training import COMPRESSION, QUANT_LAYER, WCC_LAYER, run_jobs, toy_runner

from mmwcc.diagnostics.layer_stats import LayerStats
from mmwcc.engine.hooks import CompressionStatsHook

STATS = dict(type='mmwcc.CompressionStatsHook', interval=4)
EVERY_LAYER = dict(STATS, group_by='layer')
QUANTIZERS = (
    'act_clip_alpha',
    'act_clipped',
    'act_sqnr',
    'weight_clip_alpha',
    'weight_clipped',
    'weight_sqnr',
)
VISUALIZER = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])


def runner_of(tmp_path, stats=STATS, **kwargs):
    return toy_runner(
        tmp_path,
        hooks=dict(compression_schedule=None, stats=stats),
        visualizer=VISUALIZER,
        **kwargs,
    )


def scalars(tmp_path, prefix):
    """Return by step what the local backend wrote under a prefix, without it."""
    path = next(Path(tmp_path).glob('*/vis_data/scalars.json'))
    found = {}
    for line in map(json.loads, path.read_text().splitlines()):
        values = {
            key.removeprefix(f'{prefix}/'): value
            for key, value in line.items()
            if key.startswith(f'{prefix}/')
        }
        if values:
            found[line['step']] = values
    return found


class Watch(Hook):
    """Note the forward hooks on the layers in each iteration, and the input of the WCC layer in
    each.
    """

    priority = 'LOWEST'

    def __init__(self):
        self.train, self.val, self.inputs = [], [], []

    def before_train(self, runner):
        def note(layer, inputs):
            self.inputs.append((layer.training, inputs[0].detach().clone()))

        runner.model.point.register_forward_pre_hook(note)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.train.append(len(runner.model.point._forward_hooks))

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        self.val.append(len(runner.model.point._forward_hooks))


def test_what_is_measured_and_when(tmp_path):
    runner, watch = runner_of(tmp_path, EVERY_LAYER, val_interval=6), Watch()
    runner.register_hook(watch)
    runner.train()
    assert watch.train == [0, 0, 0, 1] * 3 and watch.val == [1, 1] * 2
    assert not runner.model.point._forward_hooks
    trained = scalars(tmp_path, 'compression')
    assert list(trained) == [4, 8, 12]
    assert set(trained[4]) == {
        f'energy_kept/{WCC_LAYER}',
        *(f'{name}/{layer}' for name in QUANTIZERS for layer in (WCC_LAYER, QUANT_LAYER)),
    }
    assert list(scalars(tmp_path, 'compression_val')) == [6, 12]


def test_a_few_scalars_stand_for_all_layers(tmp_path):
    """By default: mean, minimum and maximum over the layers of each class."""
    for name, stats in (('groups', STATS), ('layers', EVERY_LAYER)):
        runner_of(tmp_path / name, stats, length=4).train()
    groups, layers = (scalars(tmp_path / name, 'compression')[4] for name in ('groups', 'layers'))
    # Each class has one layer here.
    found = [groups[f'act_sqnr/WaveletCompressedConv2d/{part}'] for part in ('mean', 'min', 'max')]
    assert found == pytest.approx(3 * [layers[f'act_sqnr/{WCC_LAYER}']])
    assert {name.split('/')[1] for name in groups} == {'WaveletCompressedConv2d', 'QuantConv2d'}
    assert not any(name.startswith('energy_kept/QuantConv2d') for name in groups)


def test_groups_by_stage(tmp_path):
    runner_of(tmp_path, dict(STATS, group_by='stage'), length=4).train()
    groups = {name.split('/')[1] for name in scalars(tmp_path, 'compression')[4]}
    assert groups == {WCC_LAYER, QUANT_LAYER}


def test_values_are_those_of_the_batches(tmp_path):
    runner, watch = (
        runner_of(tmp_path, dict(EVERY_LAYER, val_batches=2), length=4, val_interval=4),
        Watch(),
    )
    runner.register_hook(watch)
    runner.train()
    inputs = (
        [x for training, x in watch.inputs if training],
        [x for training, x in watch.inputs if not training],
    )
    assert [len(each) for each in inputs] == [4, 2]
    for prefix, batches in (('compression', inputs[0][3:]), ('compression_val', inputs[1])):
        stats = LayerStats()
        for x in batches:
            stats.update(runner.model.point, x)
        seen, expected = scalars(tmp_path, prefix)[4], stats.compute()
        # The optimizer has moved the quantizers since the training batch was seen; the energy is as
        # it was.
        names = expected if prefix == 'compression_val' else ['energy_kept']
        assert [seen[f'{name}/{WCC_LAYER}'] for name in names] == pytest.approx(
            [expected[name] for name in names]
        )


def test_the_first_iteration_has_calibrated_quantizers(tmp_path):
    runner_of(tmp_path, dict(EVERY_LAYER, interval=1), length=1).train()
    assert f'act_sqnr/{QUANT_LAYER}' in scalars(tmp_path, 'compression')[1]


def test_training_is_the_same_with_and_without(tmp_path):
    states = []
    for stats in (dict(STATS, interval=1), None):
        runner = runner_of(tmp_path / str(len(states)), stats, val_interval=4)
        runner.train()
        states.append(runner.model.state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_patterns(tmp_path):
    runner_of(tmp_path, dict(EVERY_LAYER, layers=['spat.*']), length=4).train()
    assert {key.rpartition('/')[2] for key in scalars(tmp_path, 'compression')[4]} == {QUANT_LAYER}


def test_log_gets_one_line(tmp_path, caplog):
    runner = runner_of(tmp_path, EVERY_LAYER, val_interval=12)
    runner.logger.setLevel(logging.INFO)
    runner.logger.addHandler(caplog.handler)
    runner.train()
    lines = [line for line in caplog.messages if 'energy_kept' in line]
    assert [line.split(':')[0] for line in lines] == [
        *(f'compression stats at iter {i}' for i in (4, 8, 12)),
        'compression stats at validation after iter 12',
    ]
    seen = scalars(tmp_path, 'compression')[4]
    least = min((WCC_LAYER, QUANT_LAYER), key=lambda layer: seen[f'act_sqnr/{layer}'])
    mean = (seen[f'act_sqnr/{WCC_LAYER}'] + seen[f'act_sqnr/{QUANT_LAYER}']) / 2
    assert f'act_sqnr {mean:.4g} dB (least {seen[f"act_sqnr/{least}"]:.4g} in {least})' in lines[0]


def test_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
    runner = toy_runner(
        tmp_path,
        hooks=dict(compression_schedule=None, stats=STATS),
        length=8,
        visualizer=dict(type='Visualizer', vis_backends=backends),
    )
    runner.train()
    runner.visualizer.close()
    events = EventAccumulator(str(next(tmp_path.glob('*/vis_data')))).Reload()
    tag = 'compression/energy_kept/WaveletCompressedConv2d/mean'
    assert [(event.step, event.value) for event in events.Scalars(tag)] == [
        (step, pytest.approx(values['energy_kept/WaveletCompressedConv2d/mean']))
        for step, values in scalars(tmp_path, 'compression').items()
    ]


def test_validation_without_training(tmp_path):
    runner_of(tmp_path / 'train', None, length=2).train()
    runner = runner_of(
        tmp_path / 'val', val_interval=1, load_from=str(tmp_path / 'train' / 'iter_2.pth')
    )
    runner.val()
    assert isinstance(
        runner._train_loop, dict
    )  # which would be built, with its data, to ask for the iteration
    assert list(scalars(tmp_path / 'val', 'compression_val')) == [0]


def test_no_batches_of_validation(tmp_path):
    runner_of(tmp_path, dict(STATS, val_batches=0), val_interval=6).train()
    assert scalars(tmp_path, 'compression_val') == {}


def test_two_ranks(tmp_path):
    """Rank 0 alone measures, and the ranks stay together."""
    overrides = dict(
        work_dir=str(tmp_path / 'ranks'),
        hooks=dict(compression_schedule=None, stats=STATS),
        visualizer=VISUALIZER,
    )
    run_jobs(tmp_path, [dict(overrides=overrides, ranks=2)])
    assert list(scalars(tmp_path / 'ranks', 'compression')) == [4, 8, 12]


def test_nothing_to_measure_is_said_once(tmp_path, caplog):
    off = {role: dict(COMPRESSION[role], bits=32) for role in ('act_quant', 'weight_quant')}
    runner = runner_of(
        tmp_path, dict(STATS, layers=[QUANT_LAYER]), compression={**COMPRESSION, **off}
    )
    runner.logger.addHandler(caplog.handler)
    runner.train()
    lines = [line for line in caplog.messages if 'nothing was measured' in line]
    assert len(lines) == 1 and 'in 1 layers at iter 4' in lines[0]


@pytest.mark.parametrize(
    ('stats', 'kwargs', 'message'),
    [
        (STATS, dict(compression=None), 'the model must have compressed layers, got none'),
        (
            dict(STATS, layers=['head.*']),
            {},
            r"must match a whole name of a compressed layer, got 'head.*'. They are",
        ),
    ],
)
def test_refusals_when_training_starts(tmp_path, stats, kwargs, message):
    with pytest.raises(ValueError, match=message):
        runner_of(tmp_path, stats, **kwargs).train()


@pytest.mark.parametrize(
    ('kwargs', 'error', 'message'),
    [
        (dict(interval=0), ValueError, 'interval must be an integer of at least 1, got 0'),
        (dict(interval=2.5), ValueError, 'interval must be an integer of at least 1, got 2.5'),
        (dict(val_batches=-1), ValueError, 'val_batches must be an integer of at least 0, got -1'),
        (dict(group_by='head'), ValueError, "one of kind, stage, layer, got 'head'. Use 'layer'"),
        (
            dict(layers='head'),
            TypeError,
            "layers must be a list of regular expressions, got 'head'",
        ),
    ],
)
def test_refusals(kwargs, error, message):
    with pytest.raises(error, match=message):
        CompressionStatsHook(**kwargs)
