"""EfficientDet from the shipped config, and small inputs for it and its parts."""

import copy
from pathlib import Path

import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from torch import nn

from mmwcc.models.detection import compound_scaling
from mmwcc.models.detection.efficientdet_head import EfficientDetHead

BASE = Config.fromfile(
    Path(__file__).parents[2] / 'configs' / 'efficientdet' / '_base_' / 'efficientdet.py'
)


def config(size='d0', num_classes=3) -> ConfigDict:
    init_default_scope('mmdet')
    cfg = copy.deepcopy(BASE)
    cfg.merge_from_dict(dict(model=compound_scaling(size)))
    cfg.model.bbox_head.num_classes = num_classes
    return cfg.model


def build(*args, **kwargs) -> nn.Module:
    return MODELS.build(config(*args, **kwargs))


def batch(count=2, size=(64, 64)) -> dict:
    samples = []
    for _ in range(count):
        sample = DetDataSample(
            metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0))
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[4.0, 6.0, 40.0, 50.0], [30.0, 8.0, 60.0, 30.0]]),
            labels=torch.tensor([0, 2]),
        )
        samples.append(sample)
    return dict(
        inputs=[torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in samples],
        data_samples=samples,
    )


def head(**changes) -> EfficientDetHead:
    init_default_scope('mmdet')
    return EfficientDetHead(
        **{
            **dict(
                num_classes=3,
                in_channels=8,
                stacked_convs=2,
                train_cfg=BASE.model.train_cfg,
                test_cfg=BASE.model.test_cfg,
            ),
            **changes,
        }
    )


def pyramid(channels=8, size=64, levels=5) -> list[torch.Tensor]:
    return [
        torch.rand(2, channels, -(-size // 2**level), -(-size // 2**level))
        for level in range(3, 3 + levels)
    ]
