"""A quarter of a backbone."""

import pytest
import torch
from mmengine.model import PretrainedInit
from mmengine.registry import MODELS as ROOT_MODELS
from torch import nn

pytest.importorskip('mmcv')
from mmwcc.models.wae.slim import build_slim, slim_config  # noqa: E402


def test_widths_are_divided():
    assert slim_config(dict(type='mmwcc.VGG', depth=16))['base_channels'] == 16
    assert slim_config(dict(type='mmwcc.VGG', depth=16, base_channels=24), in_channels=9) == dict(
        type='mmwcc.VGG', depth=16, base_channels=6, in_channels=9
    )


@pytest.mark.parametrize(
    ('backbone', 'widths'),
    [
        (dict(type='mmdet.ResNet', depth=50), [64, 128, 256, 512]),
        (dict(type='mmseg.ResNetV1c', depth=18), [16, 32, 64, 128]),
        (dict(type='mmseg.MobileNetV2', out_indices=(1, 2, 4, 6)), [8, 8, 24, 80]),
        (dict(type='mmseg.MixVisionTransformer', embed_dims=32), [8, 16, 32, 64]),
    ],
)
def test_backbones_of_other_packages(backbone, widths):
    pytest.importorskip(backbone['type'].split('.')[0])
    wide = ROOT_MODELS.build(backbone)
    slim = build_slim(backbone, wide)
    slim.eval()
    with torch.no_grad():
        assert [feature.shape[1] for feature in slim(torch.zeros(1, 3, 64, 64))] == widths


@pytest.mark.parametrize('kind', ['Pretrained', PretrainedInit, 'mmengine.model.PretrainedInit'])
def test_what_belongs_to_pretrained_weights_is_dropped(kind):
    pytest.importorskip('mmdet')
    backbone = dict(
        type='mmdet.ResNet',
        depth=18,
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(type=kind, checkpoint='torchvision://resnet18'),
    )
    slim = slim_config(backbone)
    assert (slim['init_cfg'], slim['frozen_stages'], slim['norm_eval']) == (None, -1, False)
    assert backbone['frozen_stages'] == 1


@ROOT_MODELS.register_module(force=True)
class FixedWidth(nn.Conv2d):
    def __init__(self):
        super().__init__(3, 8, 3)


@ROOT_MODELS.register_module(force=True)
class HalfFixed(nn.Conv2d):
    """Claims to have a width, but most of it does not depend on it."""

    def __init__(self, base_channels=8):
        super().__init__(3, base_channels, 3)
        self.fixed = nn.Conv2d(8, 8, 3)


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(
        ValueError, match='must be given for FixedWidth, whose width has none of the names'
    ):
        slim_config(dict(type='FixedWidth'))
    with pytest.raises(
        ValueError, match='must be given where the high part has 9 channels and HalfFixed'
    ):
        slim_config(dict(type='HalfFixed'), in_channels=9)
    with pytest.raises(
        ValueError, match='must be given for HalfFixed, which keeps 640 of 808 parameters'
    ):
        build_slim(dict(type='HalfFixed'), HalfFixed())
    with pytest.raises(KeyError, match='Nowhere is not in the model registry'):
        slim_config(dict(type='Nowhere'))
