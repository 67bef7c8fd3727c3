_base_ = './_base_/camvid_x2.py'
model = dict(generator=dict(conv_cfg=dict(type='mmwcc.SeparableConv2d')))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=50, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=50, end=1500, by_epoch=False)
]
train_cfg = dict(max_iters=1500, val_interval=1500)
default_hooks = dict(checkpoint=dict(interval=250))
