# In the step that introduces wavelets, the paper trains at ten times the learning rate of the other
# steps.
_base_ = ['./_base_/efficientdet_d1_finetune-8xb8-30e_coco-640x640.py', '../_base_/compression/wcc_w4a8_k50.py']
compression = {**_base_.compression, **_base_.scope}
model = dict(type='mmwcc.CompressedModel', task_type=_base_.model.type, compression=compression)
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=_base_.quantizer_paramwise)
load_from = 'work_dirs/efficientdet_d1_quant-w4a8_8xb8-30e_coco-640x640/epoch_30.pth'
