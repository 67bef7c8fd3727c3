"""Networks of mmsegmentation and mmdetection through tools/deployment/export_onnx.py."""

import copy
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from test_inference_apis import train

from mmwcc.presets import preset

onnx = pytest.importorskip('onnx', reason='it is in the extra `onnx`')
onnxruntime = pytest.importorskip(
    'onnxruntime', reason='exports are checked with it; it is in the extra `onnx`'
)


@pytest.fixture(scope='module')
def tool():
    path = Path(__file__).parents[2] / 'tools' / 'deployment' / 'export_onnx.py'
    spec = importlib.util.spec_from_file_location('export_onnx', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments(config, folder, *options: str) -> list[str]:
    checkpoint = train(config)
    config.dump(folder / 'trained.py')
    return [
        str(folder / 'trained.py'),
        checkpoint,
        '--out',
        str(folder / 'net.onnx'),
        '--exporter',
        'torchscript',
        '--repeats',
        '1',
        *options,
    ]


def graph_types(folder) -> set[str]:
    return {node.op_type for node in onnx.load(folder / 'net.onnx').graph.node}


def test_segmentor_with_open_size(tool, segmentor_config, tmp_path, capsys):
    tool.main(arguments(segmentor_config, tmp_path, '--shape', '48', '80', '--dynamic'))
    printed = capsys.readouterr().out
    assert (
        '15 TopK' in printed
        and '48x80: largest difference' in printed
        and '37x51: largest difference' in printed
    )
    session = onnxruntime.InferenceSession(tmp_path / 'net.onnx')
    (logits,) = session.run(['logits'], {'image': np.zeros((1, 3, 33, 47), np.float32)})
    assert logits.shape == (1, 9, 33, 47)


def test_segmentor_with_thresholds_and_classes(tool, segmentor_config, tmp_path, capsys):
    tool.main(
        arguments(
            segmentor_config,
            tmp_path,
            '--shape',
            '48',
            '80',
            '--selection',
            'threshold',
            '--argmax',
            '--calibration-images',
            '2',
            '--cfg-options',
            'test_dataloader.dataset.pipeline.0.type=mmwcc.LoadSyntheticStreet',
        )
    )
    assert '15 thresholds' in capsys.readouterr().out
    assert not {'TopK', 'ScatterND', 'ScatterElements'} & graph_types(tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / 'net.onnx')
    (labels,) = session.run(['labels'], {'image': np.zeros((1, 3, 48, 80), np.float32)})
    assert labels.shape == (1, 48, 80) and labels.dtype == np.int64


def test_detector_returns_what_its_head_does(tool, detector_config, tmp_path):
    tool.main(arguments(detector_config, tmp_path, '--shape', '64', '96'))
    from mmdet.apis import init_detector

    model = init_detector(
        str(tmp_path / 'trained.py'), train(detector_config), palette='random', device='cpu'
    )
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        scores, boxes = model(x, None, mode='tensor')
    session = onnxruntime.InferenceSession(tmp_path / 'net.onnx')
    assert [output.name for output in session.get_outputs()][:2] == ['output_0_0', 'output_0_1']
    outputs = session.run(None, {'image': x.numpy()})
    for got, expected in zip(outputs, (*scores, *boxes), strict=True):
        assert got.shape == tuple(expected.shape)
        assert np.abs(got - expected.numpy()).mean() < 0.05 * expected.abs().mean()


def test_errors(tool, segmentor_config, tmp_path, capsys):
    given = arguments(segmentor_config, tmp_path)
    for change, message in [
        (['missing.py', *given[1:]], 'config file missing.py does not exist'),
        ([given[0], 'missing.pth', *given[2:]], 'missing.pth does not exist'),
        ([*given, '--opset', '12'], 'opset must be at least 13'),
    ]:
        with pytest.raises(SystemExit, match=message):
            tool.main(change)
    for change, message in [
        (['--out', 'net.pb'], '--out must end in .onnx, got net.pb'),
        (['--repeats', '0'], '--repeats must be at least 1, got 0'),
    ]:
        with pytest.raises(SystemExit):
            tool.main([*given, *change])
        assert message in capsys.readouterr().err


def test_maps_get_scales_from_training_images(tool, segmentor_config, tmp_path, capsys):
    config = copy.deepcopy(segmentor_config)  # other tests share the original
    config.model.compression = preset('quant_channel_w8a8')
    config.work_dir = str(tmp_path / 'work')
    tool.main(
        arguments(
            config,
            tmp_path,
            *('--shape', '48', '80', '--maps', '--calibration-images', '2'),
            '--cfg-options',
            'test_dataloader.dataset.pipeline.0.type=mmwcc.LoadSyntheticStreet',
        )
    )
    printed = capsys.readouterr().out
    [(clips, batches)] = re.findall(r'maps: (\d+) clips from (\d+) batches', printed)
    assert int(clips) > 0 and int(batches) > 0
    assert 'convolutions in integers' in printed
