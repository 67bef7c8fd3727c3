# Ablation: wavelet convolutions without the transform in front of them.
_base_ = './waveletnet-m24_1xb128-164e_cifar10-32x32.py'
model = dict(backbone=dict(kappa=(0, 0, 3)))
