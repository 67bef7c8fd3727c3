# From all coefficients to an eighth of them in one run, which is as long as the three steps 50 %,
# 25 % and 12.5 % together.
_base_ = [
    './_base_/deeplabv3plus_mobilenetv2-os16_finetune-400i_camvid-256x256.py',
    '../_base_/compression/wcc_w8a8_k12_5.py'
]
model = dict(type='mmwcc.CompressedModel', task_type=_base_.model.type, compression=_base_.compression)
optim_wrapper = dict(paramwise_cfg=_base_.quantizer_paramwise)
param_scheduler = [dict(type='PolyLR', eta_min=0.0, power=0.9, begin=0, end=1200, by_epoch=False)]
train_cfg = dict(max_iters=1200)
default_hooks = dict(
    compression_schedule=dict(
        type='mmwcc.CompressionScheduleHook',
        keep_ratio=dict(type='exponential', begin=0, end=900, start=1.0, stop=0.125, interval=50)))
load_from = 'work_dirs/deeplabv3plus_mobilenetv2-os16_quant-w8a8_400i_camvid-256x256/iter_400.pth'
