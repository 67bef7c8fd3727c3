"""RTMDet, whose head shares convolutions between levels: they have several names and one weight."""

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip('mmdet')

from mmengine.config import Config  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

import mmwcc  # noqa: E402, F401  (makes `mmdet::` resolve)
from mmwcc.checkpoint import read_stamp, recorded_layers  # noqa: E402
from mmwcc.compression import compare  # noqa: E402
from mmwcc.cost import count_cost  # noqa: E402
from mmwcc.model_tree import compressed_layers  # noqa: E402
from mmwcc.reports.model_facts import build_with_report  # noqa: E402
from mmwcc.utils import dense_config  # noqa: E402

pytestmark = pytest.mark.slow

CONFIG = """
_base_ = ['mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py']
from mmwcc.presets import compress
model = compress(_base_.model, 'wcc_w8a8_k50')
model['backbone'] = dict(init_cfg=None, widen_factor=0.125, deepen_factor=0.167, norm_cfg=dict(type='BN'))
model['neck'] = dict(in_channels=[32, 64, 128], out_channels=32, num_csp_blocks=1, norm_cfg=dict(type='BN'))
model['bbox_head'] = dict(in_channels=32, feat_channels=32, num_classes=3, norm_cfg=dict(type='BN'))
train_pipeline = [dict(type='mmwcc.LoadSyntheticStreet'), dict(type='LoadAnnotations', with_bbox=True),
                  dict(type='PackDetInputs')]
street = dict(_delete_=True, type='mmwcc.SyntheticStreetDataset', task='detection', length=2, img_scale=(160, 96))
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, batch_sampler=None,
                        sampler=dict(type='InfiniteSampler'), dataset=dict(**street, pipeline=train_pipeline))
val_dataloader = val_cfg = val_evaluator = None
test_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False, dataset=dict(
    **street, pipeline=[dict(type='mmwcc.LoadSyntheticStreet'), dict(type='Resize', scale=(160, 96), keep_ratio=True),
                        dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')]))
test_evaluator = dict(_delete_=True, type='VOCMetric', metric='mAP')
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=2)
param_scheduler = [dict(type='PolyLR', begin=0, end=9, by_epoch=False)]
custom_hooks = [dict(type='EMAHook', ema_type='ExpMomentumEMA', update_buffers=True)]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=1), logger=dict(interval=1))
log_level = 'WARNING'
"""  # noqa: E501


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Config:
    folder = tmp_path_factory.mktemp('rtmdet')
    (folder / 'rtmdet.py').write_text(CONFIG)
    config = Config.fromfile(folder / 'rtmdet.py')
    config.work_dir = str(folder / 'work')
    return config


def build(config, name, **changes) -> Runner:
    config = copy.deepcopy(config)
    config.merge_from_dict(changes)
    config.experiment_name = f'rtmdet-{name}-{Path(config.work_dir).parent.name}'
    return Runner.from_cfg(config)


@pytest.fixture(scope='module')
def checkpoint(config) -> str:
    build(config, 'trained').train()
    return str(Path(config.work_dir) / 'iter_2.pth')


def test_it_accepts_its_own_checkpoint(config, checkpoint):
    shared = 'bbox_head.cls_convs.2.0.conv'
    saved = torch.load(checkpoint, weights_only=False)
    stamp = read_stamp(saved)['layers']
    assert stamp[shared] == stamp[shared.replace('convs.2', 'convs.0')]
    model = build(config, 'own').model
    assert shared not in compressed_layers(model), 'a layer is worked on once'
    found = compare(saved['state_dict'], model, recorded_layers(saved))
    assert not (found.only_in_checkpoint or found.only_in_model or found.states or found.shapes)


def test_it_resumes_and_is_tested(config, checkpoint):
    runner = build(config, 'resumed', resume=True, **{'train_cfg.max_iters': 3})
    runner.train()
    assert runner.iter == 3
    build(config, 'tested', load_from=checkpoint).test()


def test_inference_apis_load_it(config, checkpoint):
    from mmdet.apis import inference_detector, init_detector

    image = np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8)
    plain = copy.deepcopy(config)
    plain.test_dataloader.dataset.pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(160, 96), keep_ratio=True),
        dict(type='PackDetInputs'),
    ]
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='.*must compress')
        model = init_detector(plain, checkpoint, device='cpu', palette='coco')
        assert inference_detector(model, image).pred_instances.bboxes.shape[1] == 4


def test_reports_and_costs_name_it(config, checkpoint):
    layers = read_stamp(torch.load(checkpoint, weights_only=False))['layers']
    model, report = build_with_report(config)
    named = {layer.name for layer in report}
    assert set(layers) <= named
    _, dense = build_with_report(dense_config(config)[0])
    assert {layer.name for layer in dense} == named
    counted = {layer.name: layer for layer in count_cost(model, (96, 160)).layers}
    assert len(counted['bbox_head.cls_convs.0.0.conv'].geometry.maps) == 3
    assert 'bbox_head.cls_convs.1.0.conv' not in counted
