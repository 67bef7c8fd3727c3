# Quantization alone: 8-bit weights, 8-bit activations.
_base_ = './wcc_w8a8_k100.py'
compression = dict(pointwise=dict(_delete_=True, type='mmwcc.QuantConv2d'))
