_base_ = ['./_base_/finetune_60i_street-64x192.py', '../_base_/compression/wcc_w8a8_k12_5.py']
compression = {**_base_.compression, 'keep_dense': _base_.keep_dense}
model = dict(type='mmwcc.CompressedModel', task_type=_base_.model.type, compression=compression)
optim_wrapper = dict(paramwise_cfg=_base_.quantizer_paramwise)
load_from = 'work_dirs/monodepth2_mobilenetv2_wcc-w8a8-k25_60i_street-64x192/iter_60.pth'
