# FCN on WaveletNet at output stride 16, from scratch.
_base_ = [
    'mmseg::_base_/models/fcn_r50-d8.py', '../_base_/datasets/camvid_256x256.py', 'mmseg::_base_/default_runtime.py',
    '../_base_/schedules/sgd_poly_3000i.py'
]
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        _delete_=True,
        type='mmwcc.WaveletNet',
        strides=(1, 2, 2, 2, 1, 1, 1),
        dilations=(1, 1, 1, 1, 1, 2, 2),
        out_indices=(1, 2, 4, 6),
        norm_cfg=norm_cfg),
    decode_head=dict(in_channels=320, channels=128, num_classes=11, norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=96, channels=64, num_classes=11, norm_cfg=norm_cfg))
randomness = dict(seed=0)
