# The dense model from which every compression on Cityscapes starts. The published DeepLabV3+ has no
# auxiliary head.
_base_ = [
    './_base_/deeplabv3plus_mobilenetv2-os16.py', '../_base_/datasets/cityscapes_768x768.py',
    'mmseg::_base_/default_runtime.py', '../_base_/schedules/sgd_poly_160e_cityscapes.py'
]
data_preprocessor = dict(size=_base_.crop_size)
model = dict(data_preprocessor=data_preprocessor, auxiliary_head=None)
