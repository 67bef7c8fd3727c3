# Wavelet compression with full-precision numbers, an eighth of the coefficients kept.
_base_ = './wcc_w8a8_k12_5.py'
compression = dict(weight_quant=None, act_quant=None)
