_base_ = ['./_base_/faster-rcnn_r50-fpn_finetune-1x_coco.py', '../../_base_/compression/wcc_w8a8_k50.py']
model = dict(type='mmwcc.CompressedModel', task_type=_base_.model.type, compression=_base_.compression)
optim_wrapper = dict(paramwise_cfg=_base_.quantizer_paramwise)
load_from = 'work_dirs/faster-rcnn_r50-fpn_quant-w8a8_1x_coco-1333x800/epoch_12.pth'
