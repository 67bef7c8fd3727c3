# Quantization alone, for runtimes: 8-bit weights with a clip for each output channel, and 8-bit
# activations whose signed grid has its lowest level, -128.
_base_ = './quant_w8a8.py'
compression = dict(weight_quant=dict(per_channel=True), act_quant=dict(symmetric=False))
