"""Errors of feature maps by layer and setting: sums, files and figures."""

import csv

import pytest
import torch
from torch import nn

from mmwcc.diagnostics import CompressionErrors, measure_errors, plot_errors, write_errors
from mmwcc.diagnostics.compression_error import QUANTIZED, WAVELET, Setting
from mmwcc.diagnostics.feature_maps import MapError, compress_map, map_error, quantize_map


class Toy(nn.Module):
    """Two 1x1 layers with maps of different size, one that is pooled away and one that does not
    run.
    """

    def __init__(self):
        super().__init__()
        self.wide = nn.Conv2d(3, 4, 1)
        self.spatial = nn.Conv2d(4, 4, 3, padding=1)
        self.narrow = nn.Conv2d(4, 4, 1, stride=2)
        self.pooled = nn.Conv2d(4, 4, 1)
        self.idle = nn.Conv2d(4, 4, 1)

    def test_step(self, x):
        x = torch.relu(self.narrow(torch.relu(self.spatial(self.wide(x)))))
        return self.pooled(x.mean((2, 3), keepdim=True))


@pytest.fixture
def batches():
    return [torch.randn(1, 3, 16, 24) for _ in range(3)]


def test_errors_are_summed_over_images(batches):
    errors = measure_errors(
        Toy(), batches, bits=[2], keep_ratios=[0.25, 0.5], levels=2, wavelet='db2'
    )
    assert (
        list(errors.layers) == ['wide', 'narrow']
        and errors.images == 3
        and errors.left_out == ['pooled']
    )
    assert errors.sizes == dict(wide=(16, 24), narrow=(8, 12))
    quantized, quarter, half = errors.settings
    assert (quantized, quarter) == (Setting(QUANTIZED, 2), Setting(WAVELET, 8, 0.25))
    assert [setting.effective_bits for setting in errors.settings] == [2, 2, 4]
    expected = sum((map_error(x, quantize_map(x, 2)) for x in batches), MapError())
    assert errors.layers['wide'][quantized].squared == pytest.approx(expected.squared)
    expected = sum(
        (map_error(x, compress_map(x, 0.25, levels=2, wavelet='db2').values) for x in batches),
        MapError(),
    )
    found = errors.layers['wide'][quarter]
    assert (found.squared, found.size) == (pytest.approx(expected.squared), 3 * 3 * 16 * 24)
    assert (
        errors.relative(quarter, (16, 24)) == [found.relative]
        and errors.mse(quarter)[0] == found.mse
    )
    assert errors.relative(half) < errors.relative(quarter)


def test_the_network_computes_what_it_did(batches):
    model = Toy()
    before = model.test_step(batches[0])
    measure_errors(model, batches, bits=[1], keep_ratios=[0.1])
    torch.testing.assert_close(model.test_step(batches[0]), before, rtol=0, atol=0)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_table_of_layers_and_means(batches, tmp_path):
    errors = measure_errors(Toy(), batches, bits=[1, 8], keep_ratios=[0.125])
    write_errors(errors, tmp_path / 'errors.csv')
    with (tmp_path / 'errors.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert [(row['layer'], row['method'], row['effective_bits']) for row in rows] == [
        (layer, *setting)
        for layer in ('wide', 'narrow', 'mean')
        for setting in ((QUANTIZED, '1'), (QUANTIZED, '8'), (WAVELET, '1'))
    ]
    assert (rows[0]['height'], rows[0]['width'], rows[2]['keep_ratio'], rows[2]['bits']) == (
        '16',
        '24',
        '0.125',
        '8',
    )
    for column in ('mse', 'relative_mse'):
        values = [float(rows[place][column]) for place in (2, 5)]
        assert float(rows[8][column]) == pytest.approx(sum(values) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ('bits', 'keep_ratios', 'panels'), [([1, 2, 4], [0.25], 2), ([3], [0.25], 1)]
)
def test_figure(batches, tmp_path, monkeypatch, bits, keep_ratios, panels):
    from matplotlib.figure import Figure

    figures, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure,
        'savefig',
        lambda figure, *args, **kwargs: figures.append(figure) or save(figure, *args, **kwargs),
    )
    plot_errors(
        measure_errors(Toy(), batches, bits, keep_ratios), tmp_path / 'errors.png', 'a title'
    )
    assert (tmp_path / 'errors.png').read_bytes().startswith(b'\x89PNG')
    curves, layers = figures[0].axes
    assert [list(line.get_xdata()) for line in curves.lines] == [bits, [2.0]]
    assert len(layers.lines) == (2 if panels == 2 else 0)
    if panels == 2:
        assert layers.lines[0].get_label() == 'uniform quantization, 2 bits'


def test_dead_layers_are_left_out_of_means():
    dead, setting = MapError(0.0, 0.0, 4), Setting(QUANTIZED, 2)
    errors = CompressionErrors(
        dict(a={setting: dead}, b={setting: MapError(1.0, 4.0, 4)}), dict(a=(8, 8), b=(4, 4))
    )
    assert errors.relative(setting) == [0.25]
    assert str(errors.relative(setting, (8, 8))) == '[nan]'


def test_models_without_maps_to_compress_are_refused(batches):
    with pytest.raises(
        ValueError, match='the model must have 1x1 convolutions with one group, got none in Conv2d'
    ):
        measure_errors(nn.Conv2d(3, 3, 3), batches, [2], [0.5])
    with pytest.raises(
        ValueError, match='maps must have at least 32 pixels a side for 5 levels, got none'
    ):
        measure_errors(Toy(), batches, [2], [0.5], levels=5)
    with pytest.raises(ValueError, match='measure_errors: batches must hold at least one batch'):
        measure_errors(Toy(), [], [2], [0.5])
