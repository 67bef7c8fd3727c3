"""The dense twin is what a model was before compression; times and bytes are those of fabricated
calls.
"""

import itertools
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from mmwcc.compression import compress_model
from mmwcc.diagnostics.latency import Latency, dense_twin, device_name, measure_latency, peak_memory
from mmwcc.layers import WCC, QuantConv2d, WaveletCompressedConv2d

CPU = torch.device('cpu')
COMPRESSION = dict(
    pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.25),
    keep_dense=[],
    other=dict(type='mmwcc.QuantConv2d'),
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=4),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=4),
)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, padding=1, padding_mode='reflect'),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, padding='same', dilation=2, groups=4, bias=False),
        nn.Sequential(nn.Conv2d(8, 4, 1, stride=2)),
    )


def test_twin_is_the_network_before_compression():
    model, x = network(), torch.randn(2, 3, 17, 22)
    expected = model.eval()(x)
    compress_model(model, COMPRESSION, verbose=False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    twin = dense_twin(model)
    assert torch.equal(twin(x), expected) and not twin.training
    assert not torch.allclose(model.train()(x), expected)
    assert [type(twin[i]) for i in (0, 2)] == [nn.Conv2d] * 2 and type(twin[3][0]) is nn.Conv2d
    assert {key: value.data_ptr() for key, value in twin.named_parameters()} == {
        key: value.data_ptr() for key, value in model.named_parameters() if 'clip_alpha' not in key
    }
    assert list(before) == list(model.state_dict()) and isinstance(model[0], QuantConv2d)


def test_twin_of_conv_cfg_layers_of_a_shared_layer_and_of_one_layer():
    point = WCC(4, 4, 1, keep_ratio=0.5)
    model = nn.ModuleDict(
        dict(one=point, other=nn.Sequential(point, WCC(4, 4, 3, padding=1, keep_ratio=0.5)))
    )
    twin = dense_twin(model)
    assert (
        type(twin.one) is nn.Conv2d
        and twin.other[0] is twin.one
        and type(twin.other[1]) is nn.Conv2d
    )
    alone = dense_twin(WaveletCompressedConv2d(4, 6, keep_ratio=0.5))
    assert type(alone) is nn.Conv2d and alone.weight.shape == (6, 4, 1, 1)


def test_twin_of_a_layer_with_a_hook_and_of_one_that_is_pruned():
    seen, model = [], nn.Sequential(WaveletCompressedConv2d(4, 6, keep_ratio=0.5))
    model[0].register_forward_hook(lambda module, *_: seen.append(type(module)))
    dense_twin(model)(torch.randn(1, 4, 8, 8))
    assert seen == [nn.Conv2d]
    prune.l1_unstructured(model[0], 'weight', amount=0.5)
    with pytest.raises(ValueError, match='dense_twin: the weight of conv must be a parameter'):
        dense_twin(model)


def test_twin_does_not_share_statistics():
    model = network()
    compress_model(model, COMPRESSION, verbose=False)
    dense_twin(model).train()(torch.randn(2, 3, 8, 8))
    assert not model[1].num_batches_tracked and not model[1].running_mean.any()


def test_latency_of_calls_of_known_length(monkeypatch):
    durations = iter([0.010, 0.002, 0.020, 0.003, 0.090, 0.001])
    now, order = [0.0], []
    monkeypatch.setattr(time, 'perf_counter', lambda: now[0])

    def call(name):
        order.append(name)
        # Untimed: two warm-up calls of each, and every other one after them.
        if len(order) > 4 and len(order) % 2 == 0:
            now[0] += next(durations)

    counted = []
    seen = measure_latency(
        dict(a=lambda: call('a'), b=lambda: call('b')),
        CPU,
        repeats=3,
        warmup=2,
        on_repeat=lambda: counted.append(len(order)),
    )
    assert counted == [8, 12, 16]
    assert order == ['a', 'a', 'b', 'b'] + ['a', 'a', 'b', 'b'] * 3
    assert seen['a'].median == pytest.approx(20) and seen['b'].median == pytest.approx(2)
    assert seen['a'].p95 == pytest.approx(20 + 0.9 * 70)
    monkeypatch.undo()
    assert measure_latency(dict(a=lambda: time.sleep(0.002)), CPU, repeats=1)['a'].median >= 2


def test_cuda_times_are_those_of_events(monkeypatch):
    """The order in which CUDA is asked, with a CUDA that only keeps a list."""
    log, stream, numbers = [], object(), itertools.count()

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing
            self.name = f'event {next(numbers) % 2}'

        def record(self, on):
            assert on is stream
            log.append(self.name)

        def elapsed_time(self, end):
            assert (self.name, end.name) == ('event 0', 'event 1')
            return 7.0

    fake = SimpleNamespace(
        Event=Event,
        current_stream=lambda device: stream,
        synchronize=lambda device: log.append(f'synchronize {device}'),
    )
    monkeypatch.setattr(torch, 'cuda', fake)
    seen = measure_latency(
        dict(a=lambda: log.append('call')), torch.device('cuda', 1), repeats=2, warmup=1
    )
    turn = ['call', 'synchronize cuda:1', 'event 0', 'call', 'event 1', 'synchronize cuda:1']
    assert log == ['call', *turn, *turn] and seen == dict(a=Latency(7.0, 7.0))


def test_peak_memory_by_hand():
    x = torch.zeros(1, 4, 10, 10)  # 1600 bytes
    model = nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    with torch.no_grad():
        assert (
            peak_memory(lambda: model(x)) == 2 * 3200
        )  # the map, and the same after ReLU; the next one is smaller
        model[1].inplace = True
        assert peak_memory(lambda: model(x)) == 3200 + 800
        kept = []
        assert peak_memory(lambda: kept.extend(x + i for i in range(5))) == 5 * 1600


def test_peak_memory_counts_views_once_and_nothing_from_before():
    x, weight = torch.zeros(100), torch.zeros(100)
    assert peak_memory(lambda: x.view(10, 10).t() + weight.reshape(10, 10)) == 400
    assert peak_memory(lambda: (x + 1).view(10, 10).t()) == 400
    assert peak_memory(lambda: x.add_(1)) == 0


def test_peak_memory_frees():

    def chain():
        y = torch.zeros(100)
        for _ in range(50):
            y = y + 1

    assert peak_memory(chain) == 800


def test_device_name():
    assert device_name(CPU)
