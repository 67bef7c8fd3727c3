_base_ = './_base_/waveletnet_120e_imagenet.py'
model = dict(backbone=dict(widen_factor=0.75), head=dict(in_channels=960))
