# One step of compression on CamVid: the dense recipe cut to 400 iterations at a tenth of its
# learning rate.
_base_ = '../deeplabv3plus_mobilenetv2-os16_dense_3000i_camvid-256x256.py'
optim_wrapper = dict(optimizer=dict(lr=5e-3))
param_scheduler = [dict(type='PolyLR', eta_min=0.0, power=0.9, begin=0, end=400, by_epoch=False)]
train_cfg = dict(max_iters=400, val_interval=400)
default_hooks = dict(checkpoint=dict(interval=400, max_keep_ckpts=1))
