# A small DeepLabV3+ on rendered street scenes, trained from scratch in a few minutes on two cores.
_base_ = ['../_base_/deeplabv3plus_mobilenetv2-os16.py', 'mmseg::_base_/default_runtime.py']
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=(128, 192)),
    # Output stride 8: at this size, poles and signs are a pixel or two wide.
    backbone=dict(widen_factor=0.5, strides=(1, 2, 2, 1, 1, 1, 1), dilations=(1, 1, 1, 1, 1, 1, 1), norm_cfg=norm_cfg),
    decode_head=dict(
        in_channels=160, channels=64, c1_in_channels=16, c1_channels=24, dilations=(1, 2, 4, 6), num_classes=9,
        norm_cfg=norm_cfg,
        # sky, building, pole, road, pavement, tree, sign, car, pedestrian
        loss_decode=dict(class_weight=[1.0, 1.0, 4.0, 1.0, 2.0, 1.5, 6.0, 2.0, 6.0])),
    auxiliary_head=None)
train_pipeline = [
    dict(type='mmwcc.LoadSyntheticStreet'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs')
]
test_pipeline = [dict(type='mmwcc.LoadSyntheticStreet'), dict(type='PackSegInputs')]
street = dict(type='mmwcc.SyntheticStreetDataset', img_scale=(192, 128))
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(**street, length=320, split='train', pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**street, length=64, split='val', pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=3e-3, weight_decay=1e-2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=20, by_epoch=False),
    dict(type='PolyLR', power=0.9, eta_min=2e-5, begin=20, end=180, by_epoch=False)
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=180, val_interval=180)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=180, max_keep_ckpts=1),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    compression_check=dict(type='mmwcc.CompressionCheckHook'),
    random_state=dict(type='mmwcc.RandomStateHook'))
randomness = dict(seed=0)
