# One step of compression of RTMDet-tiny on COCO: twelve epochs without mosaic and mixup, as
# mmdetection trains its last ones, at a tenth of its learning rate.
_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
# Weights come from `load_from`.
model = dict(backbone=dict(init_cfg=None))
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline_stage2))
optim_wrapper = dict(optimizer=dict(lr=4e-4))
param_scheduler = [
    dict(type='CosineAnnealingLR', eta_min=2e-5, begin=0, end=12, T_max=12, by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=12, val_interval=1, dynamic_intervals=None)
custom_hooks = [
    dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.0002, update_buffers=True, priority=49)]
default_hooks = dict(
    checkpoint=dict(interval=1),
    compression_check=dict(type='mmwcc.CompressionCheckHook'), random_state=dict(type='mmwcc.RandomStateHook'))
