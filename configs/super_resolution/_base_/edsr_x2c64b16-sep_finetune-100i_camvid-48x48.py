# One step of compression on CamVid: 100 iterations at a fifth of the dense learning rate.
_base_ = '../edsr_x2c64b16-sep_dense_1500i_camvid-48x48.py'
head_and_tail = ['first', r'generator\.upsample\..*', 'last']
optim_wrapper = dict(optimizer=dict(lr=2e-4))
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=1e-6, begin=0, end=100, by_epoch=False)]
train_cfg = dict(max_iters=100, val_interval=100)
default_hooks = dict(checkpoint=dict(interval=100, max_keep_ckpts=1))
