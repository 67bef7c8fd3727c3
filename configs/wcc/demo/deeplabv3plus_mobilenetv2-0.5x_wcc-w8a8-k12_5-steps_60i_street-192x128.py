# Half, then a quarter, then an eighth of the coefficients in one run, with a validation at the end
# of every step.
_base_ = ['./_base_/finetune_20i_street-192x128.py', '../../_base_/compression/wcc_w8a8_k12_5.py']
model = dict(type='mmwcc.CompressedModel', task_type=_base_.model.type, compression=_base_.compression)
optim_wrapper = dict(paramwise_cfg=_base_.quantizer_paramwise)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=2e-5, begin=0, end=60, by_epoch=False)]
train_cfg = dict(max_iters=60, val_interval=20)
default_hooks = dict(
    compression_schedule=dict(
        type='mmwcc.CompressionScheduleHook',
        keep_ratio=dict(type='step', steps=[(0, 0.5), (20, 0.25), (40, 0.125)])))
