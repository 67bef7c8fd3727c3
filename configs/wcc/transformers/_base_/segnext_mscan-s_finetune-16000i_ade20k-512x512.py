# One step of compression of SegNeXt-S on ADE20K: a tenth of mmsegmentation's schedule at a tenth of its
# learning rate.
_base_ = 'mmseg::segnext/segnext_mscan-s_1xb16-adamw-160k_ade20k-512x512.py'
# Weights come from `load_from`.
model = dict(backbone=dict(init_cfg=None))
optim_wrapper = dict(optimizer=dict(lr=6e-6))
param_scheduler = [dict(type='PolyLR', eta_min=0.0, power=1.0, begin=0, end=16000, by_epoch=False)]
train_cfg = dict(max_iters=16000, val_interval=16000)
default_hooks = dict(
    checkpoint=dict(interval=16000),
    compression_check=dict(type='mmwcc.CompressionCheckHook'), random_state=dict(type='mmwcc.RandomStateHook'))
