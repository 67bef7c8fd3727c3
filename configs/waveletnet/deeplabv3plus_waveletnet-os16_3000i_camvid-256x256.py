# WaveletNet in place of MobileNetV2, trained from scratch; both have the same arguments.
_base_ = '../wcc/deeplabv3plus_mobilenetv2-os16_dense_3000i_camvid-256x256.py'
model = dict(backbone=dict(type='mmwcc.WaveletNet'))
