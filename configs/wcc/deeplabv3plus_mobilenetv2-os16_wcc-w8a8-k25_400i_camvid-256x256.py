_base_ = [
    './_base_/deeplabv3plus_mobilenetv2-os16_finetune-400i_camvid-256x256.py',
    '../_base_/compression/wcc_w8a8_k25.py'
]
model = dict(type='mmwcc.CompressedModel', task_type=_base_.model.type, compression=_base_.compression)
optim_wrapper = dict(paramwise_cfg=_base_.quantizer_paramwise)
load_from = 'work_dirs/deeplabv3plus_mobilenetv2-os16_wcc-w8a8-k50_400i_camvid-256x256/iter_400.pth'
