_base_ = ['./_base_/finetune_20i_street-192x128.py', '../../_base_/compression/quant_w8a8.py']
model = dict(type='mmwcc.CompressedModel', task_type=_base_.model.type, compression=_base_.compression)
optim_wrapper = dict(paramwise_cfg=_base_.quantizer_paramwise)
