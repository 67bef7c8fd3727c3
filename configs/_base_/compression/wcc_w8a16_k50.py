# Wavelet compression with 8-bit weights, 16-bit activations, half of the coefficients kept.
_base_ = './wcc_w8a8_k50.py'
compression = dict(act_quant=dict(bits=16))
