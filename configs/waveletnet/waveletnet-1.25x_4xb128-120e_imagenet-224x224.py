_base_ = './_base_/waveletnet_120e_imagenet.py'
model = dict(backbone=dict(widen_factor=1.25), head=dict(in_channels=1600))
