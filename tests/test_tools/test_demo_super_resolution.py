"""tools/demo_super_resolution.py, from a config and a checkpoint to an image."""

import re

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmcv')
CONFIG = (
    "model = dict(type='mmwcc.SuperResolver', "
    "generator=dict(type='mmwcc.EDSR', mid_channels=4, num_blocks=1))\n"
)


@pytest.fixture
def folder(tmp_path):
    from mmwcc.models import SuperResolver

    (tmp_path / 'small.py').write_text(CONFIG)
    model = SuperResolver(dict(type='mmwcc.EDSR', mid_channels=4, num_blocks=1))
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'small.pth')
    image = np.zeros((48, 64, 3), np.uint8)
    image[..., 2] = np.random.default_rng(0).integers(0, 256, (48, 64))
    cv2.imwrite(str(tmp_path / 'a.png'), image)  # red
    return tmp_path


@pytest.fixture
def run(run_tool, folder, monkeypatch):
    monkeypatch.chdir(folder)
    return lambda *arguments: run_tool('demo_super_resolution.py', 'a.png', *arguments)


def test_it_writes_a_picture_and_says_how_good_it_is(run, folder):
    pair = ('--model', 'small.py', 'small.pth')
    result = run(
        *pair,
        *pair,
        '--name',
        'one',
        '--name',
        'two',
        '--crop',
        '8',
        '8',
        '16',
        '16',
        '--out-file',
        'out.png',
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split(':')[0] for line in lines if 'dB' in line] == ['bicubic', 'one', 'two']
    assert lines[-1] == 'wrote out.png'
    figure = cv2.imread(str(folder / 'out.png')).astype(int)
    assert figure.shape[0] > 300
    assert (figure[..., 2] > figure[..., 0] + 100).mean() > 0.05  # the original is red
    assert (figure[..., 0] > figure[..., 2] + 100).mean() < 0.01


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--crop', '60', '0', '16', '16'), '--crop: .* inside an image of 64 x 48 pixels'),
        (('--name', 'a', '--name', 'b'), '--name was given 2 times for 1 networks'),
    ],
)
def test_wrong_arguments_are_explained(run, arguments, message):
    result = run('--model', 'small.py', 'small.pth', *arguments)
    assert result.returncode == 1 and re.search(message, result.stderr), result.stderr
    assert 'Traceback' not in result.stderr
