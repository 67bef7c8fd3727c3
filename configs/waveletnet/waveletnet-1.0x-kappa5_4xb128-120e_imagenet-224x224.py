# Depth 5 wherever the channels allow it.
_base_ = './_base_/waveletnet_120e_imagenet.py'
model = dict(backbone=dict(kappa=(0, 5, 5)))
