# EDSR-baseline: 16 blocks of 64 channels.
_base_ = '../../_base_/runtime_classification.py'
model = dict(type='mmwcc.SuperResolver', generator=dict(type='mmwcc.EDSR', scale=2, mid_channels=64, num_blocks=16))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-4, weight_decay=0.))
train_cfg = dict(type='IterBasedTrainLoop')
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False), checkpoint=dict(by_epoch=False, interval=5000, max_keep_ckpts=2))
log_processor = dict(by_epoch=False)
