# Ablation: wavelet convolutions without the transform in front of them.
_base_ = './waveletnet-m4_1xb64-6e_street-32x32.py'
model = dict(backbone=dict(kappa=(0, 0, 3)))
