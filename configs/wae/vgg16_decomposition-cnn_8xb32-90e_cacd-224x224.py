# Baseline: train the networks and the encoder together with the losses of the classifiers, without
# any transform loss.
_base_ = [
    './_base_/vgg16.py', '../_base_/datasets/cacd_224x224.py', './_base_/sgd_plateau_90e.py',
    '../_base_/runtime_classification.py'
]
model = dict(
    head=dict(num_classes=_base_.num_classes),
    fused_head=dict(num_classes=_base_.num_classes),
    stage=3,
    gamma=0,
    decomposition=dict(type='mmwcc.WAEEncoder'))
