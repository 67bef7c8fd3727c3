_base_ = ['./_base_/finetune_1xb12-20e_kitti-192x640.py', '../_base_/compression/quant_w8a2.py']
compression = {**_base_.compression, 'keep_dense': _base_.keep_dense}
model = dict(type='mmwcc.CompressedModel', task_type=_base_.model.type, compression=compression)
optim_wrapper = dict(paramwise_cfg=_base_.quantizer_paramwise)
load_from = 'work_dirs/monodepth2_mobilenetv2_quant-w8a4_1xb12-20e_kitti-192x640/epoch_20.pth'
