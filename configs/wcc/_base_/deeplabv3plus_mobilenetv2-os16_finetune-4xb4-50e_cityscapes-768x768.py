# One step of compression on Cityscapes: 50 epochs, 50 x 2,975 images / 16 a batch = 9,296.9,
# rounded up to 9,297 iterations.
_base_ = '../deeplabv3plus_mobilenetv2-os16_dense_4xb4-160e_cityscapes-768x768.py'
model = dict(pretrained=None)
optim_wrapper = dict(optimizer=dict(lr=1e-2))
param_scheduler = [dict(type='PolyLR', eta_min=0.0, power=0.9, begin=0, end=9297, by_epoch=False)]
train_cfg = dict(max_iters=9297, val_interval=3099)
default_hooks = dict(checkpoint=dict(interval=3099, max_keep_ckpts=1))
