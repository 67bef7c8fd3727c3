"""tools/demo_detection.py and tools/model_converters/effdet.py, from files to files."""

import re

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmdet', exc_type=ImportError)
CONFIG = """
_base_ = 'mmwcc::efficientdet/_base_/efficientdet.py'
default_scope = 'mmdet'
model = dict(
    backbone=dict(_delete_=True, type='MobileNetV2', widen_factor=0.25, out_indices=(2, 4, 6)),
    neck=dict(in_channels=[8, 24, 80], out_channels=8, num_cells=1),
    bbox_head=dict(num_classes=2, in_channels=8, stacked_convs=1))
test_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 48), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')]))
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    path = tmp_path_factory.mktemp('demo')
    (path / 'small.py').write_text(CONFIG)
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(path / 'small.py').model)
    torch.nn.init.constant_(
        model.bbox_head.cls_predictor.pointwise_conv.bias, 1.0
    )  # sees something everywhere
    meta = dict(dataset_meta=dict(classes=('cup', 'cell'), palette=[(255, 0, 0), (0, 255, 0)]))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path / 'small.pth')
    torch.save(dict(state_dict=model.state_dict(), meta={}), path / 'nameless.pth')
    torch.save({'wrong.weight': torch.zeros(1)}, path / 'other.pth')
    cv2.imwrite(str(path / 'a.png'), np.full((48, 64, 3), 128, dtype=np.uint8))
    return path


@pytest.fixture
def run(run_tool, folder, monkeypatch):
    monkeypatch.chdir(folder)
    return run_tool


def test_demo_draws_what_it_finds(run, folder):
    result = run('demo_detection.py', 'a.png', 'small.py', 'small.pth', '--out-file', 'out.png')
    assert result.returncode == 0, result.stderr
    found, wrote = result.stdout.splitlines()[-2:]
    assert re.fullmatch(r'(cup: \d+)?(, )?(cell: \d+)?', found) and found
    assert wrote == 'wrote out.png'
    image = cv2.imread(str(folder / 'out.png'))
    assert image.shape[1] >= 64 and len(np.unique(image.reshape(-1, 3), axis=0)) > 5


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('b.png', 'small.py', 'small.pth'), 'b.png'),
        (('a.png', 'small.py', 'other.pth'), 'other.pth'),
        (
            ('a.png', 'small.py', 'nameless.pth'),
            'Neither the checkpoint nor the config names the classes',
        ),
    ],
)
def test_demo_explains_what_is_wrong(run, arguments, message):
    result = run('demo_detection.py', *arguments)
    assert result.returncode == 1 and message in result.stderr, result.stderr
    assert 'Traceback' not in result.stderr


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        ('other.pth', "from_effdet: 'wrong.weight' must be the name of a weight"),
        ('a.png', 'a.png cannot be read'),
        ('none.pth', 'none.pth cannot be read'),
    ],
)
def test_converter_explains_what_is_wrong(run, folder, source, message):
    result = run('model_converters/effdet.py', source, 'converted.pth')
    assert result.returncode == 1 and message in result.stderr, result.stderr
    assert 'Traceback' not in result.stderr and not (folder / 'converted.pth').exists()
