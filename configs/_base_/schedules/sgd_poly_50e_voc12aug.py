# 50 epochs of the augmented Pascal VOC 2012: 50 x 10,582 images / 16 a batch = 33,068.75, rounded
# up to 33,069 iterations.
_base_ = './sgd_poly.py'
optim_wrapper = dict(optimizer=dict(lr=1e-2))
param_scheduler = [dict(type='PolyLR', eta_min=0.0, power=0.9, begin=0, end=33069, by_epoch=False)]
train_cfg = dict(max_iters=33069, val_interval=3307)
default_hooks = dict(checkpoint=dict(interval=3307, max_keep_ckpts=2))
auto_scale_lr = dict(enable=False, base_batch_size=16)
