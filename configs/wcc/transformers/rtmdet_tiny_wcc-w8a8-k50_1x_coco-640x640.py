_base_ = ['./_base_/rtmdet_tiny_finetune-1x_coco.py', '../../_base_/compression/wcc_linear_w8a8_k50.py']
model = dict(type='mmwcc.CompressedModel', task_type=_base_.model.type, compression=_base_.compression)
optim_wrapper = dict(paramwise_cfg=_base_.quantizer_paramwise)
load_from = 'https://download.openmmlab.com/mmdetection/v3.0/rtmdet/rtmdet_tiny_8xb32-300e_coco/rtmdet_tiny_8xb32-300e_coco_20220902_112414-78e30dcc.pth'  # noqa: E501
