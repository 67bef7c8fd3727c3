# Blood cells at half size, and the schedule of a short training: AdamW, counted in iterations.
_base_ = ['./efficientdet.py', '../../_base_/datasets/bccd_640x480.py', 'mmdet::_base_/default_runtime.py']
img_scale = (320, 240)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=img_scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=img_scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
]
train_dataloader = dict(batch_size=4, sampler=dict(type='InfiniteSampler'), dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
# A higher momentum, because statistics come from few batches; and padding to 256 rows for 240.
norm_cfg = dict(type='BN', eps=1e-3, momentum=0.1)
model = dict(
    data_preprocessor=dict(pad_size_divisor=64),
    neck=dict(norm_cfg=norm_cfg),
    bbox_head=dict(num_classes=3, norm_cfg=norm_cfg))
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=10, norm_type=2))
train_cfg = dict(type='IterBasedTrainLoop')
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=100, max_keep_ckpts=1),
    compression_check=dict(type='mmwcc.CompressionCheckHook'),
    random_state=dict(type='mmwcc.RandomStateHook'))
randomness = dict(seed=0)
