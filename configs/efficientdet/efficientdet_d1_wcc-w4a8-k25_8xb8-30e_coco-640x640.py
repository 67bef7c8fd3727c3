_base_ = ['./_base_/efficientdet_d1_finetune-8xb8-30e_coco-640x640.py', '../_base_/compression/wcc_w4a8_k25.py']
compression = {**_base_.compression, **_base_.scope}
model = dict(type='mmwcc.CompressedModel', task_type=_base_.model.type, compression=compression)
optim_wrapper = dict(paramwise_cfg=_base_.quantizer_paramwise)
load_from = 'work_dirs/efficientdet_d1_wcc-w4a8-k50_8xb8-30e_coco-640x640/epoch_30.pth'
