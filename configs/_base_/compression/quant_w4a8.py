# Quantization alone: 4-bit weights, 8-bit activations.
_base_ = './quant_w8a8.py'
compression = dict(weight_quant=dict(bits=4))
