# The baseline of WAE + VGG16 on CACD: VGG16 on the whole image.
_base_ = [
    '../_base_/datasets/cacd_224x224.py', './_base_/sgd_plateau_90e.py', '../_base_/runtime_classification.py'
]
model = dict(
    type='mmwcc.ImageClassifier',
    backbone=dict(type='mmwcc.VGG', depth=16),
    head=dict(
        type='mmwcc.LinearClsHead',
        num_classes=_base_.num_classes,
        in_channels=512 * 7 * 7,
        hidden_channels=(4096, 4096),
        dropout=0.5,
        init_cfg=dict(type='Xavier', layer='Linear')))
