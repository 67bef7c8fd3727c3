# Baseline: the networks on cA and on the three details of a fixed CDF 9/7 transform.
_base_ = [
    './_base_/vgg16.py', '../_base_/datasets/cacd_224x224.py', './_base_/sgd_plateau_90e.py',
    '../_base_/runtime_classification.py'
]
model = dict(
    head=dict(num_classes=_base_.num_classes),
    fused_head=dict(num_classes=_base_.num_classes),
    stage=2,
    decomposition=dict(type='mmwcc.WaveletDecomposition', wavelet='bior4.4'))
