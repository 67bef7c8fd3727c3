# mmsegmentation's config with MobileNetV2, which has the same arguments as WaveletNet.
_base_ = 'mmseg::mobilenet_v2/mobilenet-v2-d8_fcn_4xb2-80k_cityscapes-512x1024.py'
imagenet = 'work_dirs/waveletnet-1.0x_4xb128-120e_imagenet-224x224/epoch_120.pth'
model = dict(
    pretrained=None,
    backbone=dict(
        type='mmwcc.WaveletNet', init_cfg=dict(type='Pretrained', checkpoint=imagenet, prefix='backbone.')))
default_hooks = dict(
    compression_check=dict(type='mmwcc.CompressionCheckHook'), random_state=dict(type='mmwcc.RandomStateHook'))
