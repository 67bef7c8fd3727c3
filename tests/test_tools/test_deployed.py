"""The benchmark of deployment: its engines, its processes and its table."""

import copy
import importlib
from pathlib import Path

import pytest
import torch
from torch import nn

from mmwcc.compression import compress_model
from mmwcc.maps import add_map_scales
from mmwcc.post_training import calibrate
from mmwcc.presets import preset

pytest.importorskip('mmseg', reason='the benchmark times networks of it')
FOLDER = Path(__file__).resolve().parents[2] / 'tools' / 'benchmarks'


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.fixture
def forms(load, tmp_path):
    torch.manual_seed(0)
    dense = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)),
    ).eval()
    images = [torch.randn(1, 3, 16, 16) for _ in range(2)]
    quantized = copy.deepcopy(dense)
    compress_model(quantized, preset('quant_channel_w8a8'), verbose=False)
    calibrate(quantized, images)
    add_map_scales(quantized, (16, 16))
    calibrate(quantized, images, again=False)
    engines = load('engines')
    return engines.Forms(engines.Trained(dense, quantized.eval(), images, 'mmengine'), tmp_path)


@pytest.mark.parametrize(
    'name',
    [
        'torch',
        'folded',
        'simulated',
        'mmwcc',
        'mmwcc-recorded',
        'ort',
        'ort-int8',
        'ort-export',
        'ov',
        'ov-export',
    ],
)
def test_engines_compute_the_network(load, forms, name):
    package = dict(ort='onnxruntime', ov='openvino').get(name.partition('-')[0], 'torch')
    pytest.importorskip(package, reason='the engine is not installed')
    engine, image = load('engines').ENGINES[name], forms.trained.images[0]
    with torch.no_grad():
        expected = forms.trained.dense(image)
    [got] = engine.load(forms.file(engine.file))(image)
    exact = name in ('torch', 'folded', 'ort', 'ov')
    assert load('measuring').relative_error(got, expected) < (1e-5 if exact else 0.05)


def test_contenders_run_in_processes_of_their_own_and_may_fail(load, forms, capsys, monkeypatch):
    deployed, engines = load('deployed'), load('engines')
    forms.file('integer.pt').write_bytes(b'no network')
    broken = engines.Engine('broken', 'no such form', None)
    monkeypatch.setitem(engines.ENGINES, 'broken', broken)
    image = forms.trained.images[0]
    started = list(deployed.contenders(['torch', 'mmwcc', 'broken'], forms, 1, image))
    assert [contender.name for contender in started] == ['torch']
    printed = capsys.readouterr().out
    for name in ('mmwcc', 'broken'):
        assert f'{engines.ENGINES[name].title} fails:\nTraceback' in printed
    times = deployed.timed(started, image, 2, 3)
    assert len(times['torch']) == 6 and all(time > 0 for time in times['torch'])
    started[0].stop()
    assert not started[0].process.is_alive()


def test_every_network_gets_a_table_and_a_plot(load, tmp_path):
    pytest.importorskip('matplotlib')
    plot, networks = load('plot'), load('deployed_networks').NETWORKS
    row = dict(title='mmwcc', milliseconds=2.0, quartiles=[1.0, 3.0], error=0.0)
    for network in networks:
        name = f'deployed_{network}'
        assert name in load('tables').TABLES
        content = dict(environment=dict(network=network, size=[4, 8]), rows=[row])
        plot.PLOTS[name](content, tmp_path / f'{name}.png')
        assert (tmp_path / f'{name}.png').stat().st_size > 0


def test_networks_are_read_without_pretrained_weights(load):
    pytest.importorskip('mmdet', reason='two of the networks are of it')
    for network in load('deployed_networks').NETWORKS.values():
        assert 'Pretrained' not in str(network.read().model)


def test_table_begins_with_the_fastest(load):
    common = dict(quartiles=[1.0, 2.0], error=0.01, miou=45.6, same=99.75)
    rows = [
        dict(common, title='slow', milliseconds=20.0),
        dict(common, title='fast', milliseconds=1.5),
    ]
    table = load('tables').TABLES['deployed_segnext'](
        dict(environment=dict(size=[4, 8]), rows=rows)
    )
    assert table.splitlines()[2:] == [
        '| engine | median | quartiles | error | mIoU | same class, % |',
        '| --- | --- | --- | --- | --- | --- |',
        '| fast | 1.5 ms | 1.0 to 2.0 | 1.0e-02 | 45.60 | 99.75 |',
        '| slow | 20.0 ms | 1.0 to 2.0 | 1.0e-02 | 45.60 | 99.75 |',
    ]
