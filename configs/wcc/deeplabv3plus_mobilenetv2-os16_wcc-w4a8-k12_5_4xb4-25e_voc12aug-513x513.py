_base_ = [
    './_base_/deeplabv3plus_mobilenetv2-os16_finetune-4xb4-25e_voc12aug-513x513.py',
    '../_base_/compression/wcc_w4a8_k12_5.py'
]
model = dict(type='mmwcc.CompressedModel', task_type=_base_.model.type, compression=_base_.compression)
optim_wrapper = dict(paramwise_cfg=_base_.quantizer_paramwise)
load_from = 'work_dirs/deeplabv3plus_mobilenetv2-os16_wcc-w4a8-k25_4xb4-25e_voc12aug-513x513/iter_16535.pth'
