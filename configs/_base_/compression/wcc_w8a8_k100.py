# Wavelet compression with 8-bit weights, 8-bit activations, every coefficient kept.
_base_ = './wcc_w8a8_k50.py'
compression = dict(pointwise=dict(keep_ratio=1.0))
