_base_ = ['./_base_/mask2former_r50_finetune-36875i_coco.py', '../../_base_/compression/wcc_linear_w8a8_k50.py']
model = dict(type='mmwcc.CompressedModel', task_type=_base_.model.type, compression=_base_.compression)
optim_wrapper = dict(paramwise_cfg=_base_.quantizer_paramwise)
load_from = 'https://download.openmmlab.com/mmdetection/v3.0/mask2former/mask2former_r50_8xb2-lsj-50e_coco/mask2former_r50_8xb2-lsj-50e_coco_20220506_191028-41b088b6.pth'  # noqa: E501
