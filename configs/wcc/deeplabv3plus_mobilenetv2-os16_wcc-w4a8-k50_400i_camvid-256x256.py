_base_ = [
    './_base_/deeplabv3plus_mobilenetv2-os16_finetune-400i_camvid-256x256.py',
    '../_base_/compression/wcc_w4a8_k50.py'
]
model = dict(type='mmwcc.CompressedModel', task_type=_base_.model.type, compression=_base_.compression)
optim_wrapper = dict(paramwise_cfg=_base_.quantizer_paramwise)
load_from = 'work_dirs/deeplabv3plus_mobilenetv2-os16_quant-w4a8_400i_camvid-256x256/iter_400.pth'
