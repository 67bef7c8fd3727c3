# The baseline of WAE + ResNet-50: ResNet-50 on the whole image.
_base_ = [
    '../_base_/datasets/imagenet_224x224.py', './_base_/sgd_plateau_90e.py', '../_base_/runtime_classification.py'
]
model = dict(
    type='mmwcc.ImageClassifier',
    backbone=dict(type='mmdet.ResNet', depth=50, out_indices=(3, ), norm_eval=False),
    neck=dict(type='mmwcc.GlobalAveragePooling'),
    head=dict(type='mmwcc.LinearClsHead', num_classes=1000, in_channels=2048))
optim_wrapper = dict(optimizer=dict(lr=0.1))
