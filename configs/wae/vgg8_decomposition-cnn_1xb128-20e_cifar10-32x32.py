# Baseline: train the networks and the encoder together with the losses of the classifiers, without
# any transform loss.
_base_ = [
    './_base_/vgg8.py', '../_base_/datasets/cifar10.py', './_base_/sgd_cosine_20e.py',
    '../_base_/runtime_classification.py'
]
model = dict(stage=3, gamma=0, decomposition=dict(type='mmwcc.WAEEncoder'))
