# The dense model from which every compression on CamVid starts, trained from scratch.
_base_ = [
    './_base_/deeplabv3plus_mobilenetv2-os16.py', '../_base_/datasets/camvid_256x256.py',
    'mmseg::_base_/default_runtime.py', '../_base_/schedules/sgd_poly_3000i.py'
]
norm_cfg = dict(type='BN', requires_grad=True)
data_preprocessor = dict(size=_base_.crop_size)
model = dict(
    pretrained=None,
    data_preprocessor=data_preprocessor,
    backbone=dict(norm_cfg=norm_cfg),
    decode_head=dict(num_classes=11, norm_cfg=norm_cfg),
    auxiliary_head=dict(num_classes=11, norm_cfg=norm_cfg))
randomness = dict(seed=0)
