"""The benchmark hook in real runners: when it measures, what it measures, where results go, what it
leaves alone.
"""

import json
import logging
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import MODELS
from torch import nn
from toy_training import COMPRESSION, ToySegmentor, run_jobs, toy_runner

from mmwcc.diagnostics.latency import Latency
from mmwcc.engine.hooks import BenchmarkHook, benchmark_hook
from mmwcc.layers import QuantConv2d

BENCHMARK = dict(type='mmwcc.BenchmarkHook', shapes=[(8, 10)], repeats=2, warmup=0)
QUANTITIES = ('latency_ms', 'p95_ms', 'throughput', 'peak_memory_mib')
VISUALIZER = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])


def runner_of(tmp_path, benchmark=BENCHMARK, hooks=None, **kwargs):
    hooks = dict(compression_schedule=None, benchmark=benchmark, **(hooks or {}))
    return toy_runner(tmp_path, hooks=hooks, visualizer=VISUALIZER, **kwargs)


def result(tmp_path, name='benchmark.json'):
    return json.loads(Path(tmp_path, name).read_text())


def moments(tmp_path):
    return sorted({row['iter'] for row in result(tmp_path)['rows']})


@pytest.mark.parametrize(
    ('settings', 'kwargs', 'expected'),
    [
        (dict(), dict(), [0, 12]),
        (dict(interval=5, end=False), dict(), [0, 5, 10]),
        (dict(interval=6, start=False), dict(val_interval=4), [6, 12]),
        (dict(start=False), dict(), [12]),
        (dict(interval=2, by_epoch=True), dict(by_epoch=True), [0, 6, 12]),
        (dict(interval=3, end=False), dict(by_epoch=True, length=2), [0, 3, 6]),
    ],
)
def test_moments(tmp_path, settings, kwargs, expected):
    runner_of(tmp_path, dict(BENCHMARK, **settings), **kwargs).train()
    assert moments(tmp_path) == expected
    counted = [(row['iter'], row['contender']) for row in result(tmp_path)['rows']]
    assert counted == [
        (moment, contender) for moment in expected for contender in ('model', 'dense')
    ]


def test_rows_scalars_and_environment(tmp_path, monkeypatch, caplog):
    def latency(calls, device, *, repeats, warmup, on_repeat):
        on_repeat()
        assert (device.type, repeats, warmup) == ('cpu', 2, 0) and list(calls) == ['model', 'dense']
        for call in calls.values():
            assert call().shape[1] == 2
        return dict(model=Latency(4.0, 5.0), dense=Latency(8.0, 9.0))

    monkeypatch.setattr(benchmark_hook, 'measure_latency', latency)
    shapes = [(8, 10), (4, 3, 16, 16)]
    runner = runner_of(tmp_path, dict(BENCHMARK, shapes=shapes, end=False), length=1)
    runner.logger.setLevel(logging.INFO)
    runner.logger.addHandler(caplog.handler)
    runner.train()
    content = result(tmp_path)
    rows = content['rows']
    assert [
        (row['shape'], row['contender'], row['latency_ms'], row['p95_ms'], row['throughput'])
        for row in rows
    ] == [
        ([1, 3, 8, 10], 'model', 4.0, 5.0, 250.0),
        ([1, 3, 8, 10], 'dense', 8.0, 9.0, 125.0),
        ([4, 3, 16, 16], 'model', 4.0, 5.0, 1000.0),
        ([4, 3, 16, 16], 'dense', 8.0, 9.0, 500.0),
    ]
    # Three float32 maps of 8 channels at once: the variable x, and the input and the output of
    # BatchNorm.
    assert rows[3]['peak_memory_mib'] == 3 * 4 * 8 * 16 * 16 * 4 / 2**20
    assert (
        content['environment']['torch'] == torch.__version__
        and content['environment']['dtype'] == 'float32'
    )
    path = next(Path(tmp_path).glob('*/vis_data/scalars.json'))
    lines = map(json.loads, path.read_text().splitlines())
    line = next(line for line in lines if 'benchmark/latency_ms/1x3x8x10' in line)
    assert line['step'] == 0 and line['benchmark/dense_throughput/4x3x16x16'] == 500.0
    assert {key for key in line if key.startswith('benchmark/')} == {
        f'benchmark/{dense}{name}/{shape}'
        for dense in ('', 'dense_')
        for name in QUANTITIES
        for shape in ('1x3x8x10', '4x3x16x16')
    }
    assert 'BenchmarkHook: 4 repeats' in caplog.messages  # before they begin
    table = next(
        message for message in caplog.messages if message.startswith('benchmark at iter 0')
    ).splitlines()
    assert table[1].split() == [
        'input',
        'network',
        'latency',
        'ms',
        'p95',
        'ms',
        'images/s',
        'memory',
        'MiB',
    ]
    assert table[2].split()[:5] == ['1x3x8x10', 'model', '4', '5', '250'] and len(table) == 6


class Watch(Hook):
    """Note what the benchmark could disturb, around it."""

    priority = 'VERY_LOW'

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.modes = [module.training for module in runner.model.modules()]

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        assert [module.training for module in runner.model.modules()] == self.modes


def test_training_is_the_same_with_and_without(tmp_path):
    """Also from the start, where quantizers are not calibrated and must not become so by the
    benchmark.
    """
    states = []
    for benchmark in (dict(BENCHMARK, interval=1), None):
        freeze = dict(type='mmwcc.QuantizerFreezeHook', batch_norm=6)
        runner = runner_of(
            tmp_path / str(len(states)), benchmark, hooks=dict(freeze=freeze), val_interval=4
        )
        runner.register_hook(Watch())
        runner.train()
        states.append(runner.model.state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@MODELS.register_module(force=True)
class RandomSegmentor(ToySegmentor):
    """A model that draws random numbers in evaluation, and notes how it is run."""

    runs = []

    def forward(self, inputs, labels, mode='tensor'):
        if mode == 'tensor':
            noise = torch.rand(1)
            quantizer = next(
                (layer.act_quant for layer in (self.spatial,) if isinstance(layer, QuantConv2d)),
                None,
            )
            self.runs.append(
                dict(
                    compressed=quantizer is not None,
                    modes={self.training, self.norm1.training, self.dropout.training},
                    grad=torch.is_grad_enabled(),
                    calibrated=quantizer is None or bool(quantizer.initialized),
                    autocast=torch.is_autocast_enabled('cpu'),
                    samples=len(labels),
                    noise=noise,
                    channels_last=inputs.is_contiguous(memory_format=torch.channels_last),
                    sizes=labels[0].img_shape,
                )
            )
        return super().forward(inputs, labels, mode)


@pytest.mark.parametrize(
    ('settings', 'autocast', 'channels_last'),
    [({}, False, False), (dict(amp_dtype='bfloat16', channels_last=True), True, True)],
)
def test_how_the_network_runs(tmp_path, settings, autocast, channels_last):
    RandomSegmentor.runs.clear()
    model = dict(type='mmwcc.CompressedModel', task_type='RandomSegmentor', compression=COMPRESSION)
    runner = runner_of(
        tmp_path,
        dict(BENCHMARK, shapes=[(2, 3, 8, 10)], end=False, **settings),
        model=model,
        length=1,
    )
    before = {}

    class Before(Hook):
        priority = 'ABOVE_NORMAL'

        def before_train(self, runner):
            before['state'] = torch.get_rng_state()

    class After(Hook):
        priority = 'LOWEST'

        def before_train(self, runner):
            assert torch.equal(before['state'], torch.get_rng_state())

    runner.register_hook(Before())
    runner.register_hook(After())
    runner.train()
    runs = RandomSegmentor.runs
    assert [run['compressed'] for run in runs].count(False) == 1 + 2 * 2
    for run in runs:
        assert (
            run['modes'] == {False}
            and not run['grad']
            and run['samples'] == 2
            and run['sizes'] == (8, 10)
        )
        assert run['autocast'] == autocast and run['channels_last'] == channels_last
    assert [run['calibrated'] for run in runs] == [False] + [True] * (len(runs) - 1)


def test_dense_model_and_no_twin(tmp_path):
    runner_of(tmp_path / 'a', compression=None, length=1).train()
    runner_of(tmp_path / 'b', dict(BENCHMARK, dense=False), length=1).train()
    for name in 'ab':
        assert {row['contender'] for row in result(tmp_path / name)['rows']} == {'model'}


def test_resumed_run_continues_the_file(tmp_path):
    benchmark = dict(BENCHMARK, interval=4, start=False, out_file='speed.json')
    runner_of(tmp_path, benchmark, length=8).train()
    first = result(tmp_path, 'speed.json')['rows']
    runner_of(tmp_path, benchmark, resume=True, load_from=str(tmp_path / 'iter_6.pth')).train()
    rows = result(tmp_path, 'speed.json')['rows']
    assert (
        [row['iter'] for row in rows] == [4, 4, 8, 8, 12, 12]
        and rows[:2] == first[:2]
        and rows[2:4] != first[2:4]
    )
    runner_of(tmp_path, benchmark, length=4).train()
    assert len(result(tmp_path, 'speed.json')['rows']) == 2


def test_shape_that_does_not_fit_fails_at_the_start(tmp_path):
    runner = runner_of(tmp_path, dict(BENCHMARK, shapes=[(5, 8, 10)], start=False))
    with pytest.raises(RuntimeError, match='to have 3 channels'):
        runner.train()
    assert not list(Path(tmp_path).glob('*.pth'))


def test_two_ranks(tmp_path):
    """Rank 0 measures with quantizers that the ranks calibrate together, and does not wait for the
    other in that.
    """
    overrides = dict(
        work_dir=str(tmp_path / 'ranks'), hooks=dict(compression_schedule=None, benchmark=BENCHMARK)
    )
    run_jobs(tmp_path, [dict(overrides=overrides, ranks=2)])
    assert moments(tmp_path / 'ranks') == [0, 12]
    ranks = [torch.load(tmp_path / 'ranks' / f'rank{rank}.pth') for rank in (0, 1)]
    assert all(
        torch.equal(value, ranks[1][key])
        for key, value in ranks[0].items()
        if key.endswith('clip_alpha')
    )


def test_refusals_when_training_starts(tmp_path):
    with pytest.raises(
        RuntimeError, match='by_epoch must be False with an iteration-based training loop, got True'
    ):
        runner_of(tmp_path, dict(BENCHMARK, by_epoch=True)).train()
    runner = runner_of(tmp_path / 'meta')
    runner.model = nn.Conv2d(3, 3, 1, device='meta')
    with pytest.raises(RuntimeError, match='the model must be on a CPU or a CUDA device, got meta'):
        BenchmarkHook([(8, 8)]).before_train(runner)


@pytest.mark.parametrize(
    ('kwargs', 'error', 'message'),
    [
        (dict(shapes=[]), ValueError, r'shapes must be a list of shapes, got \[\]'),
        (dict(shapes=(512, 1024)), ValueError, r'a shape must be \(H, W\), .*, got 512 in shapes'),
        (dict(shapes=[(512,)]), ValueError, r'got \(512,\) in shapes'),
        (dict(shapes=[(0, 8)]), ValueError, r'got \(0, 8\) in shapes'),
        (dict(shapes=[(8, 8.0)]), ValueError, r'got \(8, 8.0\) in shapes'),
        (dict(interval=0), ValueError, 'interval must be an integer of at least 1, got 0'),
        (dict(repeats=0), ValueError, 'repeats must be an integer of at least 1, got 0'),
        (dict(warmup=-1), ValueError, 'warmup must be an integer of at least 0, got -1'),
        (
            dict(amp_dtype='half'),
            ValueError,
            "amp_dtype must be 'float16', 'bfloat16' or None, got 'half'",
        ),
        (dict(start=False, end=False), ValueError, 'start, interval or end must be given'),
        (dict(by_epoch='yes'), TypeError, "by_epoch must be True or False, got 'yes'"),
    ],
)
def test_refusals(kwargs, error, message):
    with pytest.raises(error, match=message):
        BenchmarkHook(**{'shapes': [(8, 8)], **kwargs})
