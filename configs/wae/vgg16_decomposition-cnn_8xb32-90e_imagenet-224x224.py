# Baseline: train the networks and the encoder together with the losses of the classifiers, without
# any transform loss.
_base_ = [
    './_base_/vgg16.py', '../_base_/datasets/imagenet_224x224.py', './_base_/sgd_plateau_90e.py',
    '../_base_/runtime_classification.py'
]
model = dict(stage=3, gamma=0, decomposition=dict(type='mmwcc.WAEEncoder'))
