# One step of compression: 50 iterations at a fifth of the dense learning rate.
_base_ = './bccd_320x240.py'
optim_wrapper = dict(optimizer=dict(lr=4e-4))
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=4e-6, by_epoch=False, begin=0, end=50)]
train_cfg = dict(max_iters=50, val_interval=50)
default_hooks = dict(checkpoint=dict(interval=50))
