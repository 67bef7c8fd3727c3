# Wavelet compression with full-precision numbers, half of the coefficients kept.
_base_ = './wcc_w8a8_k50.py'
compression = dict(weight_quant=None, act_quant=None)
