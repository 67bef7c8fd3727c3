# WaveletNet and WCC combined: the convolutions of WaveletNet's units, divided or not, become
# wavelet compressed ones.
_base_ = ['./deeplabv3plus_waveletnet-os16_3000i_camvid-256x256.py', '../_base_/compression/wcc_w8a8_k50.py']
model = dict(type='mmwcc.CompressedModel', task_type=_base_.model.type, compression=_base_.compression)
optim_wrapper = dict(optimizer=dict(lr=5e-3), paramwise_cfg=_base_.quantizer_paramwise)
param_scheduler = [dict(type='PolyLR', eta_min=0.0, power=0.9, begin=0, end=400, by_epoch=False)]
train_cfg = dict(max_iters=400, val_interval=400)
default_hooks = dict(checkpoint=dict(interval=400, max_keep_ckpts=1))
load_from = 'work_dirs/deeplabv3plus_waveletnet-os16_3000i_camvid-256x256/iter_3000.pth'
