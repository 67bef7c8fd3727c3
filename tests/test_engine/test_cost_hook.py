"""The cost hook in real runners: the log, the visualizer, checkpoints, schedules."""

import json

import pytest
import torch
from mmengine.registry import MODELS
from toy_training import COMPRESSION, KEEP_RATIO, WCC_LAYER, ToySegmentor, toy_runner

from mmwcc.cost import count_cost
from mmwcc.engine.hooks import CostHook

SCHEDULE = dict(type='mmwcc.CompressionScheduleHook', keep_ratio=KEEP_RATIO)


@MODELS.register_module(force=True)
class ToySegmentorWithoutLabels(ToySegmentor):
    """Can be called as OpenMMLab's models can, with images alone."""

    def forward(self, inputs, labels=None, mode='tensor'):
        return super().forward(inputs, labels, mode)


def make(tmp_path, schedule=SCHEDULE, compression=COMPRESSION, hook=None, **kwargs):
    model = (
        dict(type='ToySegmentorWithoutLabels')
        if compression is None
        else dict(
            type='mmwcc.CompressedModel',
            task_type='ToySegmentorWithoutLabels',
            compression=compression,
        )
    )
    cost = dict(type='mmwcc.CostHook', input_shape=(8, 10), **(hook or {}))
    hooks = dict(compression_schedule=schedule, random_state=None, cost=cost)
    return toy_runner(tmp_path, model=model, hooks=hooks, **kwargs)


def cost_at(runner, keep_ratio):
    """Count the runner's model from scratch at a keep ratio."""
    runner.model.get_submodule(WCC_LAYER).keep_ratio = keep_ratio
    return count_cost(runner.model, (8, 10)).total


def test_follows_the_schedule(tmp_path, log):
    runner = make(tmp_path)
    messages = log(runner)
    runner.train()
    lines = [message for message in messages.messages if message.startswith('cost of 8x10')]
    assert [line.split(':')[0] for line in lines] == [
        'cost of 8x10',
        'cost of 8x10 at iter 4',
        'cost of 8x10 at iter 8',
    ]
    assert (
        any(line.split()[:2] == [WCC_LAYER, 'wcc'] for line in lines[0].splitlines())
        and '\n' not in lines[1]
    )

    rows = [
        json.loads(line)
        for path in tmp_path.glob('*/vis_data/*.json')
        for line in path.read_text().splitlines()
    ]
    rows = {row['step']: row for row in rows if 'cost/macs' in row}
    assert list(rows) == [0, 4, 8]
    for step, keep_ratio in ((0, 1.0), (4, 0.5), (8, 0.25)):
        expected = cost_at(runner, keep_ratio)
        checkpoint = torch.load(tmp_path / f'iter_{step + 2}.pth')  # weights_only: plain data
        stamp = checkpoint['meta']['mmwcc']
        assert stamp['cost']['total'] == expected.to_dict()
        assert (
            stamp['cost']['input_shape'] == [1, 3, 8, 10] and stamp['cost']['convention'] == 'exact'
        )
        assert set(stamp['cost']['by_kind']) == {'dense', 'quantized', 'wcc', 'transform'}
        assert stamp['layers'][WCC_LAYER]['keep_ratio'] == keep_ratio
        assert rows[step]['cost/total_bops'] == expected.total_bops
        assert rows[step]['cost/act_bytes'] == expected.act_bytes


def test_resumed_run_starts_where_the_schedule_stands(tmp_path, log):
    make(tmp_path).train()
    resumed = make(
        tmp_path, hook=dict(table=False), resume=True, load_from=str(tmp_path / 'iter_9.pth')
    )
    messages = log(resumed)
    resumed.train()
    lines = [message for message in messages.messages if message.startswith('cost of')]
    assert lines == [f'cost of 8x10: {count_cost(resumed.model, (8, 10)).summary()}']


def test_smooth_schedules_are_logged_in_few_lines(tmp_path, log):
    ramp = dict(type='linear', begin=0, end=10, start=1.0, stop=0.9)
    compression = dict(COMPRESSION, pointwise=dict(COMPRESSION['pointwise'], keep_ratio=0.9))
    runner = make(tmp_path, dict(SCHEDULE, keep_ratio=ramp), compression)
    messages = log(runner)
    runner.train()
    assert [
        message.split(':')[0] for message in messages.messages if message.startswith('cost of')
    ] == ['cost of 8x10', 'cost of 8x10 at iter 10']


def test_dense_model_without_a_schedule(tmp_path):
    runner = make(tmp_path, None, None, length=2)
    runner.train()
    stamp = torch.load(tmp_path / 'iter_2.pth')['meta']['mmwcc']
    assert (
        stamp['cost']['by_kind']['dense']['macs']
        == stamp['cost']['total']['macs']
        == 80 * (27 * 8 + 64 + 9 * 64 + 16)
    )
    assert (
        make(
            tmp_path, None, None, length=3, resume=True, load_from=str(tmp_path / 'iter_2.pth')
        ).train()
        is not None
    )


def test_tests_log_the_model_as_it_was_trained(tmp_path, log):
    runner = make(tmp_path, length=6)
    runner.train()
    tester = make(
        tmp_path / 'test',
        hook=dict(table=False, convention='paper'),
        load_from=str(tmp_path / 'iter_4.pth'),
    )
    messages = log(tester)
    tester.test()
    report = tester.hooks[[type(hook).__name__ for hook in tester.hooks].index('CostHook')].report
    assert {layer.name: layer.keep_ratio for layer in report.layers}[WCC_LAYER] == 1.0
    assert f'cost of 8x10: {report.summary()}' in messages.messages and report.convention == 'paper'


def test_training_is_not_disturbed(tmp_path):
    plain = toy_runner(tmp_path / 'plain', length=5)
    plain.train()
    watched = toy_runner(
        tmp_path / 'watched',
        length=5,
        model=dict(
            type='mmwcc.CompressedModel',
            task_type='ToySegmentorWithoutLabels',
            compression=COMPRESSION,
        ),
        hooks=dict(cost=dict(type='mmwcc.CostHook', input_shape=(8, 10))),
    )
    watched.train()
    for key, value in plain.model.state_dict().items():
        assert torch.equal(value, watched.model.state_dict()[key]), key


def test_a_shape_that_does_not_fit_stops_before_training(tmp_path):
    runner = toy_runner(
        tmp_path,
        model=dict(type='ToySegmentorWithoutLabels'),
        hooks=dict(
            compression_schedule=None, cost=dict(type='mmwcc.CostHook', input_shape=(4, 8, 10))
        ),
    )
    with pytest.raises(
        ValueError, match='count_cost: ToySegmentorWithoutLabels must run on an input of shape'
    ):
        runner.train()
    assert not list(tmp_path.glob('*.pth'))


@pytest.mark.parametrize(
    ('kwargs', 'error', 'message'),
    [
        (
            dict(input_shape=512),
            TypeError,
            'CostHook: input_shape must be a sequence of integers, got 512',
        ),
        (
            dict(input_shape=(5.0, 5)),
            TypeError,
            r'input_shape must be a sequence of integers, got \(5.0, 5\)',
        ),
        (
            dict(input_shape=(5, 5), table=1),
            TypeError,
            'CostHook: table must be True or False, got 1',
        ),
        (
            dict(input_shape=(5, 5), convention='x'),
            ValueError,
            'CostHook: convention must be one of exact, paper',
        ),
    ],
)
def test_refusals(kwargs, error, message):
    with pytest.raises(error, match=message):
        CostHook(**kwargs)
