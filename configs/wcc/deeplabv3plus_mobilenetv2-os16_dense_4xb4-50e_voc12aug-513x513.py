# The dense model from which every compression on Pascal VOC starts. The published DeepLabV3+ has no
# auxiliary head.
_base_ = [
    './_base_/deeplabv3plus_mobilenetv2-os16.py', '../_base_/datasets/pascal_voc12_aug_513x513.py',
    'mmseg::_base_/default_runtime.py', '../_base_/schedules/sgd_poly_50e_voc12aug.py'
]
data_preprocessor = dict(size=_base_.crop_size)
model = dict(data_preprocessor=data_preprocessor, decode_head=dict(num_classes=21), auxiliary_head=None)
