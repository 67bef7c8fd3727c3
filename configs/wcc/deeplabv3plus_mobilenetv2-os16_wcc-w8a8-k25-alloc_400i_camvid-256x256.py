# The budget is the bit operations of 8/8 bits and 25 %. Bits and coefficients are allocated among
# the 1x1 layers; the others keep 8/8 bits.
_base_ = [
    './_base_/deeplabv3plus_mobilenetv2-os16_finetune-400i_camvid-256x256.py',
    './_base_/deeplabv3plus_mobilenetv2-os16_w8a8-k25-alloc_camvid.yml'
]
model = dict(type='mmwcc.CompressedModel', task_type=_base_.model.type, compression=_base_.compression)
optim_wrapper = dict(paramwise_cfg=_base_.quantizer_paramwise)
default_hooks = dict(calibration=dict(type='mmwcc.CalibrationHook'))
load_from = 'work_dirs/deeplabv3plus_mobilenetv2-os16_dense_3000i_camvid-256x256/iter_3000.pth'
