# 160 epochs of Cityscapes: 160 x 2,975 images / 16 a batch = 29,750 iterations.
_base_ = './sgd_poly.py'
optim_wrapper = dict(optimizer=dict(lr=0.1))
param_scheduler = [dict(type='PolyLR', eta_min=0.0, power=0.9, begin=0, end=29750, by_epoch=False)]
train_cfg = dict(max_iters=29750, val_interval=2975)
default_hooks = dict(checkpoint=dict(interval=2975, max_keep_ckpts=2))
auto_scale_lr = dict(enable=False, base_batch_size=16)
