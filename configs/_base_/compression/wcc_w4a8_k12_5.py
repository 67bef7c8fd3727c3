# Wavelet compression with 4-bit weights, 8-bit activations, an eighth of the coefficients kept.
_base_ = './wcc_w8a8_k12_5.py'
compression = dict(weight_quant=dict(bits=4))
