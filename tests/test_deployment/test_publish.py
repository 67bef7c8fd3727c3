"""Published weights and what is said of them."""

import hashlib
import json

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip('safetensors', reason='it is in the extra `onnx`')
runner = pytest.importorskip('mmengine.runner', reason='published weights are loaded by mmengine')

from mmengine.logging import HistoryBuffer  # noqa: E402

from mmwcc.deployment import publish  # noqa: E402
from mmwcc.utils import LaunchError, check_checkpoint  # noqa: E402


@pytest.fixture
def checkpoint():
    weights = nn.Conv2d(2, 3, 1).state_dict()
    weights['again'] = weights['weight']
    ema = {
        'module.weight': weights['weight'] + 1,
        'module.bias': weights['bias'],
        'steps': torch.tensor(4),
    }
    scalars = {
        'val/mIoU': HistoryBuffer([10.0, 47.5], [1, 1]),
        'train/loss': HistoryBuffer([1.0], [1]),
        'val/time': HistoryBuffer([1.0], [1]),
    }
    return dict(
        state_dict=weights,
        optimizer=dict(state={}),
        ema_state_dict=ema,
        message_hub=dict(log_scalars=scalars),
        meta=dict(
            iter=7,
            cfg='model = dict()',
            mmwcc=dict(version='0', layers={'a': dict(bits=8)}),
            dataset_meta=dict(classes=('road', 'sky'), palette=np.array([[1, 2, 3], [4, 5, 6]])),
        ),
    )


def test_the_pair_loads_as_a_checkpoint(checkpoint, tmp_path):
    weights, meta = publish(checkpoint, tmp_path / 'new' / 'net.safetensors')
    loaded = runner.CheckpointLoader.load_checkpoint(str(weights), map_location='cpu')
    assert set(loaded) == {'meta', 'state_dict'}
    assert set(loaded['state_dict']) == {'weight', 'bias', 'again'}
    assert torch.equal(loaded['state_dict']['weight'], checkpoint['state_dict']['weight'])
    assert loaded['meta']['dataset_meta'] == dict(
        classes=['road', 'sky'], palette=[[1, 2, 3], [4, 5, 6]]
    )
    assert (
        loaded['meta']['mmwcc'] == checkpoint['meta']['mmwcc']
        and loaded['meta']['cfg'] == 'model = dict()'
    )
    said = json.loads(meta.read_text())
    assert said['metrics'] == {'val/mIoU': 47.5}
    assert said['sha256'] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (said['tensors'], said['parameters']) == (3, 15)
    check_checkpoint(str(weights))


def test_both_files_are_as_readable_as_others(checkpoint, tmp_path):
    (tmp_path / 'other').touch()
    for path in publish(checkpoint, tmp_path / 'net.safetensors'):
        assert path.stat().st_mode == (tmp_path / 'other').stat().st_mode


def test_averaged_weights_are_left_out_on_request(checkpoint, tmp_path):
    weights, _ = publish(checkpoint, tmp_path / 'net.safetensors', ema=False)
    loaded = runner.CheckpointLoader.load_checkpoint(str(weights))['state_dict']
    assert (
        torch.equal(loaded['weight'], checkpoint['state_dict']['weight'] + 1)
        and 'steps' not in loaded
    )
    del checkpoint['ema_state_dict']
    with pytest.raises(
        ValueError, match='ema must be True for a checkpoint without averaged weights'
    ):
        publish(checkpoint, tmp_path / 'net.safetensors', ema=False)


def test_weights_load_without_their_json_and_not_with_another(checkpoint, tmp_path):
    weights, meta = publish(checkpoint, tmp_path / 'net.safetensors')
    meta.write_text(json.dumps(dict(json.loads(meta.read_text()), sha256='0')))
    with pytest.raises(RuntimeError, match='describes other weights than those in'):
        runner.CheckpointLoader.load_checkpoint(str(weights))
    meta.unlink()
    assert runner.CheckpointLoader.load_checkpoint(str(weights))['meta'] == {}
    with pytest.raises(FileNotFoundError, match='missing.safetensors does not exist'):
        runner.CheckpointLoader.load_checkpoint(str(tmp_path / 'missing.safetensors'))


def test_damage_is_seen(checkpoint, tmp_path):
    weights, _ = publish(checkpoint, tmp_path / 'net.safetensors')
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(LaunchError, match='is not usable: safetensors says'):
        check_checkpoint(str(weights))


def test_errors(checkpoint, tmp_path):
    with pytest.raises(ValueError, match='out must end in .safetensors, got .*net.pth'):
        publish(checkpoint, tmp_path / 'net.pth')
    with pytest.raises(ValueError, match='must hold a state_dict, got none'):
        publish({}, tmp_path / 'net.safetensors')
    with pytest.raises(TypeError, match='every weight must be a tensor, got int for steps'):
        publish(dict(state_dict=dict(steps=3)), tmp_path / 'net.safetensors')


@pytest.mark.parametrize('folder', ['2024-05-01T12:30:00', 'C:', 'white space and ümläut', '中文'])
def test_a_path_may_have_any_name(checkpoint, tmp_path, folder):
    weights, meta = publish(checkpoint, tmp_path / folder / 'net.safetensors')
    loaded = runner.CheckpointLoader.load_checkpoint(str(weights))
    assert loaded['meta']['iter'] == 7
    meta.write_text(json.dumps(dict(json.loads(meta.read_text()), sha256='0')))
    with pytest.raises(RuntimeError, match='describes other weights than those in'):
        runner.CheckpointLoader.load_checkpoint(str(weights))
