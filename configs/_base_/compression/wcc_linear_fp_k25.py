# Wavelet compression of convolutions and linear layers with full-precision numbers, a quarter of the
# coefficients kept.
_base_ = './wcc_linear_w8a8_k25.py'
compression = dict(weight_quant=None, act_quant=None)
