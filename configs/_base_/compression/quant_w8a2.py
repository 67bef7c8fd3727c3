# Quantization alone: 8-bit weights, 2-bit activations.
_base_ = './quant_w8a8.py'
compression = dict(act_quant=dict(bits=2))
