# One step of compression of the demo's dense model.
_base_ = '../deeplabv3plus_mobilenetv2-0.5x_dense_180i_street-192x128.py'
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=2e-5, begin=0, end=20, by_epoch=False)]
train_cfg = dict(max_iters=20, val_interval=20)
default_hooks = dict(checkpoint=dict(interval=20))
load_from = 'work_dirs/deeplabv3plus_mobilenetv2-0.5x_dense_180i_street-192x128/iter_180.pth'
