"""Checkpoints through tools/misc/publish_model.py and back into the inference APIs."""

import copy
import importlib.util
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner
from test_inference_apis import assert_calibrated, train

from mmwcc.presets import preset

pytest.importorskip('safetensors', reason='it is in the extra `onnx`')


@pytest.fixture(scope='module')
def tool():
    path = Path(__file__).parents[2] / 'tools' / 'misc' / 'publish_model.py'
    spec = importlib.util.spec_from_file_location('publish_model', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_same(model, checkpoint: str) -> None:
    expected = torch.load(checkpoint, weights_only=False)['state_dict']
    got = model.state_dict()
    assert set(got) == set(expected) and all(torch.equal(got[key], expected[key]) for key in got)


def test_init_model_loads_what_was_published(tool, segmentor_config, tmp_path, capsys):
    from mmseg.apis import init_model

    checkpoint, out = train(segmentor_config), str(tmp_path / 'net.safetensors')
    tool.main([checkpoint, out])
    assert capsys.readouterr().out.endswith('left out: optimizer, message_hub\n')
    model = init_model(copy.deepcopy(segmentor_config), out, device='cpu')
    assert_calibrated(model)
    assert_same(model, checkpoint)
    trained = init_model(copy.deepcopy(segmentor_config), checkpoint, device='cpu')
    assert list(model.dataset_meta['classes']) == list(trained.dataset_meta['classes'])


def test_clips_of_rows_by_energy_are_published(tool, segmentor_config, tmp_path):
    from mmseg.apis import init_model

    config = copy.deepcopy(segmentor_config)
    config.work_dir = str(tmp_path / 'work')
    config.model.compression = preset('wcc_rows_b2')
    checkpoint, out = train(config), str(tmp_path / 'net.safetensors')
    tool.main([checkpoint, out])
    model = init_model(copy.deepcopy(config), out, device='cpu')
    assert_calibrated(model)
    assert_same(model, checkpoint)
    assert any(
        key.endswith('clip_alpha') and len(value) == 7 for key, value in model.state_dict().items()
    )


def test_init_detector_loads_what_was_published(tool, detector_config, tmp_path):
    from mmdet.apis import init_detector

    checkpoint, out = train(detector_config), str(tmp_path / 'net.safetensors')
    tool.main([checkpoint, out])
    assert_same(
        init_detector(copy.deepcopy(detector_config), out, palette='random', device='cpu'),
        checkpoint,
    )


def test_the_check_hook_reads_the_stamp(tool, segmentor_config, tmp_path):
    out = str(tmp_path / 'net.safetensors')
    tool.main([train(segmentor_config), out])
    config = copy.deepcopy(segmentor_config)
    config.pop('test_dataloader')
    config.load_from, config.work_dir = out, str(tmp_path)
    config.model.type = config.model.pop('task_type')
    config.model.pop('compression')
    with pytest.raises(RuntimeError, match='a compressed checkpoint needs a compressed model'):
        Runner.from_cfg(config).train()


def test_errors(tool, tmp_path, capsys):
    with pytest.raises(SystemExit, match='missing.pth does not exist'):
        tool.main(['missing.pth', str(tmp_path / 'net.safetensors')])
    with pytest.raises(SystemExit):
        tool.main(['missing.pth', 'net.pth'])
    assert 'OUT must end in .safetensors, got net.pth' in capsys.readouterr().err
