"""Compression where a measured table says that it is faster: the table, the traced maps, the
decision, the report.
"""

import json
from itertools import product

import pytest
import torch
from torch import nn

from mmwcc.compression import compress_model
from mmwcc.compression import only_if_faster as speed
from mmwcc.layers import (
    QuantConv2d,
    QuantLinear,
    WaveletCompressedConv2d,
    WaveletCompressedLinear,
)
from mmwcc.quantizers import LearnedClipWeightQuantizer

WCC = dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5)
QUANTIZED = dict(
    other=dict(type='mmwcc.QuantConv2d'),
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
)


class Net(nn.Module):
    """A narrow layer, a wide one and one that only training reaches, on the half map of a stem."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.5)
        )
        self.narrow = nn.Conv2d(8, 64, 1)
        self.wide = nn.Conv2d(64, 64, 1, stride=2)
        self.auxiliary = nn.Conv2d(64, 64, 1)
        self.last = nn.Conv2d(64, 2, 1)
        self.modes = []

    def forward(self, x, data_samples=None, mode='loss'):
        self.modes.append((mode, x.shape, self.training))
        x = self.narrow(self.stem(x))
        return (
            self.last(self.wide(x)) if mode == 'tensor' else self.last(self.auxiliary(self.wide(x)))
        )


def row(channels, out, size, **speedup):
    return dict(channels=channels, out=out, size=size, speedup=speedup)


@pytest.fixture
def table(tmp_path):
    """Write a table: compression is faster from 64 input channels on, and twice as fast at half the
    keep ratio.
    """
    rows = [
        row(
            channels,
            out,
            size,
            **{f'k{keep:g}': channels / 32 / keep / 2 for keep in (1.0, 0.5, 0.25)},
        )
        for channels, out, size in product((8, 64, 512), (8, 512), (8, 16))
    ]
    path = tmp_path / 'speed.json'
    path.write_text(json.dumps(dict(environment=dict(levels=3), rows=rows)))
    return path


def compress(model, table, keep_dense=('first', 'last'), pointwise=WCC, **more):
    return compress_model(
        model,
        dict(
            pointwise=pointwise,
            keep_dense=list(keep_dense),
            only_if_faster=dict(input_shape=(32, 32), table=str(table)),
            **more,
        ),
        verbose=False,
    )


def test_layers_that_would_be_slower_stay_dense_and_the_report_says_why(table):
    model = Net()
    report = compress(model, table)
    assert type(model.wide) is WaveletCompressedConv2d
    assert type(model.narrow) is type(model.auxiliary) is nn.Conv2d
    reasons = {layer.name: layer.reason for layer in report}
    assert reasons['narrow'] == 'WCC would run x0.25 as fast at 16x16'
    assert reasons['auxiliary'] == 'not reached by the traced input, so no speed known'
    assert reasons['wide'] == ''


def test_off_by_default():
    model = Net()
    compress_model(model, dict(pointwise=WCC), verbose=False)
    assert type(model.narrow) is type(model.auxiliary) is WaveletCompressedConv2d
    assert not model.modes


def test_slower_layers_are_quantized_where_others_are(table):
    model = Net()
    report = compress(
        model, table, rules=[dict(pattern='narrow', act_quant=dict(bits=6))], **QUANTIZED
    )
    assert type(model.narrow) is type(model.auxiliary) is QuantConv2d
    assert (model.narrow.act_quant.bits, model.auxiliary.act_quant.bits) == (6, 8)
    assert next(layer for layer in report if layer.name == 'narrow').reason.startswith(
        'WCC would run'
    )


@pytest.mark.parametrize('bits, speedup', [(1, 0.38), (2, 0.19)])
def test_rows_by_energy_are_as_fast_as_the_positions_that_can_have_bits(table, bits, speedup):
    """A third of the positions at 1 bit on the mean, and two thirds at 2."""
    model = Net()
    act_quant = dict(type='mmwcc.EnergyActQuantizer', bits=bits, widths=[0, 3, 4, 8])
    pointwise = dict(WCC, keep_ratio=1.0, act_quant=act_quant)
    report = compress(model, table, pointwise=pointwise, **QUANTIZED)
    reasons = {layer.name: layer.reason for layer in report}
    assert reasons['narrow'] == f'WCC would run x{speedup} as fast at 16x16'
    assert type(model.narrow) is QuantConv2d and model.narrow.act_quant.bits == 8
    assert type(model.wide) is WaveletCompressedConv2d and model.wide.act_quant.bits == bits


def test_trace_changes_nothing(table):
    model = Net().train()
    model.stem[1].eval()
    before, random = (
        {key: value.clone() for key, value in model.state_dict().items()},
        torch.get_rng_state(),
    )
    compress(model, table)
    assert model.modes == [('tensor', (1, 3, 32, 32), False)]
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.training and model.stem[0].training and not model.stem[1].training
    assert not any(module._forward_hooks for module in model.modules() if module is not model)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_map_sizes_are_those_of_the_outputs_once_a_call():
    shared = nn.Conv2d(4, 4, 1, stride=2)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), shared, shared)
    assert speed.map_sizes(model, (1, 18, 10)) == {model[0]: [(16, 8)], shared: [(8, 4), (4, 2)]}


def test_a_shared_layer_is_judged_by_its_total_time(table, monkeypatch):
    shared = nn.Conv2d(64, 64, 1)
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), shared, nn.AvgPool2d(2), shared, nn.Conv2d(64, 2, 1)
    )
    ratios = {(16, 16): 2.0, (8, 8): 0.2}
    monkeypatch.setattr(speed.SpeedTable, 'speedup', lambda self, c, o, size, *rest: ratios[size])
    judge = speed.SpeedJudge(model, speed.OnlyIfFaster((16, 16), speed.SpeedTable(table)))
    # 256 pixels twice as fast and 64 five times as slow: 320 / (128 + 320).
    assert judge.objection(shared, WCC) == 'WCC would run x0.71 as fast at 16x16, 8x8'
    ratios[8, 8] = 1.0
    assert judge.objection(shared, WCC) == ''


@pytest.mark.parametrize('change', [dict(wavelet='db2'), dict(levels=4)])
def test_layers_without_measurements_stay_dense(table, change):
    model = Net()
    report = compress(model, table, rules=[dict(pattern='wide', **change)])
    assert type(model.wide) is nn.Conv2d
    assert any(layer.reason.startswith('no speed measured for') for layer in report)


@pytest.mark.parametrize(
    ('place', 'expected'),
    [
        ((64, 8, (8, 8), 1.0), 1.0),  # on the grid
        ((64, 64, (16, 16), 0.25), 4.0),
        ((8, 8, (8, 8), 0.5 / 2**0.5), 0.25 * 2**0.5),  # half-way in logarithms
        ((64 * 8**0.5, 8, (8, 8), 1.0), 8**0.5),
        ((1, 8, (8, 8), 0.01), 0.5),  # beyond the grid: its border
        ((64, 8, (5, 8), 1.0), 5 / 8),  # padded to 8x8
    ],
)
def test_table_interpolates(table, place, expected):
    assert speed.SpeedTable(table).speedup(*place) == pytest.approx(expected)


def test_shipped_table_knows_that_wide_layers_gain_more_than_narrow_ones():
    shipped = speed.SpeedTable()
    wide, narrow = (shipped.speedup(channels, channels, (64, 64), 0.25) for channels in (1024, 24))
    assert wide > narrow > 0
    assert shipped.speedup(1024, 1024, (64, 64), 0.125) > shipped.speedup(1024, 1024, (64, 64), 1.0)


@pytest.mark.parametrize(
    ('wish', 'error', 'message'),
    [
        (True, TypeError, 'only_if_faster must be a dict or None, got True'),
        (
            dict(input_shape=(8, 8), tables=1),
            ValueError,
            "unknown key 'tables'. Known keys: input_shape, table",
        ),
        (dict(), ValueError, r'input_shape must be \(height, width\) or .*, got None'),
        (dict(input_shape=(8,)), ValueError, 'input_shape must be'),
        (dict(input_shape=(8, -8)), ValueError, 'input_shape must be'),
        (dict(input_shape=(8, 8), table=3), TypeError, 'table must be a path or None, got 3'),
        (
            dict(input_shape=(8, 8), table='none.json'),
            ValueError,
            'table must be a file .* got none.json .FileNotFound',
        ),
    ],
)
def test_wrong_wishes_are_refused(wish, error, message):
    with pytest.raises(error, match=message):
        compress_model(Net(), dict(pointwise=WCC, only_if_faster=wish), verbose=False)


def test_table_with_a_hole_is_refused(table):
    content = json.loads(table.read_text())
    del content['rows'][3]
    table.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r'table must be a file .*KeyError: \(8, 512, 256, '):
        speed.SpeedTable(table)


def test_model_that_cannot_run_is_explained_and_put_back(table):
    model, message = (
        Net().train(),
        r'Net must run on zeros of shape \(1, 5, 32, 32\) .* RuntimeError: .*by rules',
    )
    with pytest.raises(ValueError, match=message):
        compress_model(
            model,
            dict(pointwise=WCC, only_if_faster=dict(input_shape=(5, 32, 32), table=str(table))),
        )
    assert model.training and not any(module._forward_hooks for module in model.modules())
    assert type(model.wide) is nn.Conv2d


def test_layers_given_as_classes_are_judged_too(table):
    model = Net()
    compress_model(
        model,
        dict(
            pointwise=dict(type=WaveletCompressedConv2d, keep_ratio=0.5),
            other=dict(type=QuantConv2d),
            weight_quant=dict(type=LearnedClipWeightQuantizer, bits=8),
            only_if_faster=dict(input_shape=(32, 32), table=str(table)),
        ),
        verbose=False,
    )
    assert (type(model.wide), type(model.narrow)) == (WaveletCompressedConv2d, QuantConv2d)


class Mixed(nn.Module):
    """Linear layers on maps and on windows of eight by eight, wide and narrow."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 512, 1)
        self.wide, self.down = nn.Linear(512, 512), nn.Linear(512, 8)
        self.narrow, self.last = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.stem(x).permute(0, 2, 3, 1)
        return self.last(self.narrow(self.down(self.wide(x))).mean((1, 2)))


def test_linear_layers_that_would_be_slower_multiply_where_that_is_fastest(table):
    model = Mixed()
    report = compress(
        model, table, linear=dict(type='mmwcc.WaveletCompressedLinear', keep_ratio=0.25)
    )
    assert type(model.wide) is WaveletCompressedLinear and type(model.narrow) is QuantLinear
    reasons = {layer.name: layer.reason for layer in report}
    assert reasons['narrow'] == 'WCC would run x0.50 as fast at 32x32'
    assert type(model.last) is nn.Linear


def test_many_small_maps_count_as_their_pixels_together(table):
    speeds = speed.SpeedTable(table)
    one = speeds.speedup(64, 512, (16, 16), 0.5, 2)
    assert speeds.speedup(64, 512, (8, 8), 0.5, 2, images=4) == pytest.approx(one)
    calls = [speed.MapCall((8, 8), 2, 4), speed.MapCall((1, 256), 0)]
    assert speeds.speedup_of_calls(64, 512, calls, 0.5) == pytest.approx(2 / (1 / one + 1))
