_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
imagenet = 'work_dirs/waveletnet-1.0x_4xb128-120e_imagenet-224x224/epoch_120.pth'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmwcc.WaveletNet',
        out_indices=(1, 2, 4, 6),
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint=imagenet, prefix='backbone.')),
    neck=dict(in_channels=[24, 32, 96, 320]))
default_hooks = dict(
    compression_check=dict(type='mmwcc.CompressionCheckHook'), random_state=dict(type='mmwcc.RandomStateHook'))
