# Blood cells, from scratch: batch normalization is trained as well, with batches of 8.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py', '../_base_/datasets/bccd_640x480.py',
    'mmdet::_base_/schedules/schedule_1x.py', 'mmdet::_base_/default_runtime.py'
]
model = dict(
    backbone=dict(_delete_=True, type='mmwcc.WaveletNet', out_indices=(1, 2, 4, 6)),
    neck=dict(in_channels=[24, 32, 96, 320], norm_cfg=dict(type='BN')),
    bbox_head=dict(num_classes=3))
optim_wrapper = dict(optimizer=dict(lr=0.01), clip_grad=dict(max_norm=10))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='MultiStepLR', begin=0, end=48, by_epoch=True, milestones=[36, 44], gamma=0.1)
]
train_cfg = dict(max_epochs=48, val_interval=6)
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(
    checkpoint=dict(interval=6, max_keep_ckpts=1),
    compression_check=dict(type='mmwcc.CompressionCheckHook'),
    random_state=dict(type='mmwcc.RandomStateHook'))
randomness = dict(seed=0)
