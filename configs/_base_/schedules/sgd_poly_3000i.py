# CamVid from scratch: 3,000 iterations, the first 100 of them warm-up.
_base_ = './sgd_poly.py'
optim_wrapper = dict(optimizer=dict(lr=0.05, weight_decay=5e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=100, by_epoch=False),
    dict(type='PolyLR', eta_min=1e-4, power=0.9, begin=100, end=3000, by_epoch=False)
]
train_cfg = dict(max_iters=3000, val_interval=500)
default_hooks = dict(checkpoint=dict(interval=500, max_keep_ckpts=2))
