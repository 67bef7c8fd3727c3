# One step of compression on Pascal VOC: 25 epochs, 25 x 10,582 images / 16 a batch = 16,534.4,
# rounded up to 16,535 iterations.
_base_ = '../deeplabv3plus_mobilenetv2-os16_dense_4xb4-50e_voc12aug-513x513.py'
model = dict(pretrained=None)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [dict(type='PolyLR', eta_min=0.0, power=0.9, begin=0, end=16535, by_epoch=False)]
train_cfg = dict(max_iters=16535, val_interval=3307)
default_hooks = dict(checkpoint=dict(interval=3307, max_keep_ckpts=1))
