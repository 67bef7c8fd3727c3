_base_ = ['./_base_/efficientdet_d0_finetune-50i_bccd-320x240.py', '../_base_/compression/wcc_w4a8_k50.py']
compression = {**_base_.compression, **_base_.scope}
model = dict(type='mmwcc.CompressedModel', task_type=_base_.model.type, compression=compression)
optim_wrapper = dict(paramwise_cfg=_base_.quantizer_paramwise)
load_from = 'work_dirs/efficientdet_d0_quant-w4a8_50i_bccd-320x240/iter_50.pth'
