# The baseline of all WAE networks: the network on the whole image.
_base_ = [
    '../_base_/datasets/cifar10.py', './_base_/sgd_cosine_20e.py', '../_base_/runtime_classification.py'
]
model = dict(
    type='mmwcc.ImageClassifier',
    backbone=dict(type='mmwcc.VGG', depth=11, base_channels=32, num_stages=4, norm_cfg=dict(type='BN')),
    neck=dict(type='mmwcc.GlobalAveragePooling'),
    head=dict(
        type='mmwcc.LinearClsHead', num_classes=10, in_channels=256, hidden_channels=(128, ), dropout=0.5))
