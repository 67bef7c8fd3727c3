"""Small mmseg and mmdet configs that use the real networks and the inference APIs.

Their MobileNetV2 has fewer blocks.
"""

import pytest
import toy_mobilenet
from mmengine.config import Config

SEGMENTOR = """
_base_ = ['mmseg::_base_/models/fcn_r50-d8.py', 'mmwcc::_base_/compression/wcc_w8a8_k50.py']
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    type='mmwcc.CompressedModel', task_type='EncoderDecoder', compression=_base_.compression,
        pretrained=None,
    data_preprocessor=dict(size=(64, 96)),
    backbone=dict(_delete_=True, type='ToyMobileNetV2', widen_factor=0.5, out_indices=(1, 2, 4, 6),
        norm_cfg=norm_cfg),
    decode_head=dict(in_channels=160, in_index=3, channels=16, num_convs=1, num_classes=9,
        norm_cfg=norm_cfg),
    auxiliary_head=None)
default_scope = 'mmseg'
train_pipeline = [dict(type='mmwcc.LoadSyntheticStreet'), dict(type='PackSegInputs')]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[[dict(type='RandomFlip', prob=0.),
        dict(type='RandomFlip', prob=1.)],
                                         [dict(type='PackSegInputs')]])]
tta_model = dict(type='SegTTAModel')
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler'),
    dataset=dict(type='mmwcc.SyntheticStreetDataset', length=4, img_scale=(96, 64),
        pipeline=train_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, weight_decay=0.),
                     paramwise_cfg=_base_.quantizer_paramwise)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2),
    compression_check=dict(type='mmwcc.CompressionCheckHook'))
visualizer = dict(type='SegLocalVisualizer', vis_backends=[])
"""

DETECTOR = """
_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py', 'mmwcc::_base_/compression/wcc_w8a8_k50.py']
model = dict(
    type='mmwcc.CompressedModel', task_type=_base_.model.type, compression=_base_.compression,
    backbone={backbone}, neck=dict(in_channels={channels}, out_channels=32),
    bbox_head=dict(num_classes=3, in_channels=32, feat_channels=32, stacked_convs=1))
default_scope = 'mmdet'
train_pipeline = [dict(type='mmwcc.LoadSyntheticStreet'), dict(type='LoadAnnotations',
    with_bbox=True),
                  dict(type='PackDetInputs')]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(96, 64),
    keep_ratio=True),
                 dict(type='PackDetInputs')]
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler'),
    dataset=dict(type='mmwcc.SyntheticStreetDataset', task='detection', length=4,
        img_scale=(160, 96),
                 pipeline=train_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.001))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2),
    compression_check=dict(type='mmwcc.CompressionCheckHook'))
visualizer = dict(type='DetLocalVisualizer', vis_backends=[])
"""

BACKBONES = dict(
    mobilenet_v2=(
        "dict(_delete_=True, type='ToyMobileNetV2', widen_factor=0.5, out_indices=(1, 2, 4, 6))",
        '[16, 16, 48, 160]',
    ),
    resnet18=(
        'dict(depth=18, init_cfg=None, norm_eval=True, frozen_stages=1)',
        '[64, 128, 256, 512]',
    ),
)


def _config(path, text) -> Config:
    import mmwcc  # noqa: F401  (makes `mmseg::` and `mmwcc::` resolve)

    path.write_text(text)
    return Config.fromfile(path)


@pytest.fixture(scope='session')
def segmentor_config(tmp_path_factory) -> Config:
    toy_mobilenet.register('mmseg')
    folder = tmp_path_factory.mktemp('segmentor')
    config = _config(folder / 'segmentor.py', SEGMENTOR)
    config.work_dir = str(folder / 'work')
    return config


@pytest.fixture(scope='session', params=sorted(BACKBONES))
def detector_config(request, tmp_path_factory) -> Config:
    toy_mobilenet.register('mmdet')
    folder = tmp_path_factory.mktemp(request.param)
    backbone, channels = BACKBONES[request.param]
    config = _config(folder / 'detector.py', DETECTOR.format(backbone=backbone, channels=channels))
    config.work_dir = str(folder / 'work')
    return config
