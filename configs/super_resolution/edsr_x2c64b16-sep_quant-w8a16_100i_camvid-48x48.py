_base_ = ['./_base_/edsr_x2c64b16-sep_finetune-100i_camvid-48x48.py', '../_base_/compression/quant_w8a16.py']
compression = {**_base_.compression, 'keep_dense': _base_.head_and_tail}
model = dict(type='mmwcc.CompressedModel', task_type=_base_.model.type, compression=compression)
optim_wrapper = dict(paramwise_cfg=_base_.quantizer_paramwise)
load_from = 'work_dirs/edsr_x2c64b16-sep_dense_1500i_camvid-48x48/iter_1500.pth'
