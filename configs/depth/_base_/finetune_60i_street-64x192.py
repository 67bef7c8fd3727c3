# One step of compression: 60 iterations at a fifth of the dense learning rate.
_base_ = '../monodepth2_mobilenetv2_dense_600i_street-64x192.py'
optim_wrapper = dict(optimizer=dict(lr=2e-4))
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=1e-6, begin=0, end=60, by_epoch=False)]
train_cfg = dict(max_iters=60, val_interval=60)
default_hooks = dict(checkpoint=dict(interval=60))
