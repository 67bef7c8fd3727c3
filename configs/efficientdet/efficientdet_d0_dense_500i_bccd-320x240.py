# From scratch.
_base_ = './_base_/bccd_320x240.py'
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=2e-5, by_epoch=False, begin=50, end=500)
]
train_cfg = dict(max_iters=500, val_interval=500)
