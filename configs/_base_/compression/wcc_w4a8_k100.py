# Wavelet compression with 4-bit weights, 8-bit activations, every coefficient kept.
_base_ = './wcc_w8a8_k100.py'
compression = dict(weight_quant=dict(bits=4))
