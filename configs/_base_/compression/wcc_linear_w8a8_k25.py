# Wavelet compression of convolutions and linear layers: 8-bit weights and activations, a quarter of
# the coefficients kept.
_base_ = './wcc_linear_w8a8_k50.py'
compression = dict(pointwise=dict(keep_ratio=0.25), linear=dict(keep_ratio=0.25))
