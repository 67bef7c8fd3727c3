# One step of compression of Mask2Former-R50 on COCO: a tenth of mmdetection's schedule at a tenth of
# its learning rate.
_base_ = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'
# Weights come from `load_from`. The dense model is trained with its backbone at a tenth of the rate.
model = dict(backbone=dict(init_cfg=None, frozen_stages=-1))
optim_wrapper = dict(optimizer=dict(lr=1e-5))
param_scheduler = [dict(type='PolyLR', eta_min=0.0, power=0.9, begin=0, end=36875, by_epoch=False)]
train_cfg = dict(max_iters=36875, val_interval=36875, dynamic_intervals=None)
default_hooks = dict(
    checkpoint=dict(interval=36875),
    compression_check=dict(type='mmwcc.CompressionCheckHook'), random_state=dict(type='mmwcc.RandomStateHook'))
