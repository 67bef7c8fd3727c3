_base_ = [
    './_base_/deeplabv3plus_mobilenetv2-os16_finetune-4xb4-25e_voc12aug-513x513.py',
    '../_base_/compression/quant_w8a6.py'
]
model = dict(type='mmwcc.CompressedModel', task_type=_base_.model.type, compression=_base_.compression)
optim_wrapper = dict(paramwise_cfg=_base_.quantizer_paramwise)
load_from = 'work_dirs/deeplabv3plus_mobilenetv2-os16_quant-w8a8_4xb4-25e_voc12aug-513x513/iter_16535.pth'
