# Quantization alone of convolutions and linear layers: 8-bit weights, 8-bit activations.
_base_ = './quant_w8a8.py'
compression = dict(linear=dict(type='mmwcc.QuantLinear'))
