# One network on cA of a CDF 9/7 transform alone.
_base_ = [
    './_base_/vgg8.py', '../_base_/datasets/cifar10.py', './_base_/sgd_cosine_20e.py',
    '../_base_/runtime_classification.py'
]
model = dict(stage=2, fused_head=None, decomposition=dict(type='mmwcc.WaveletDecomposition', wavelet='bior4.4'))
