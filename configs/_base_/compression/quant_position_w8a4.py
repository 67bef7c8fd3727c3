# Quantization alone, with a scale for every pixel that a 1x1 convolution reads: 4 bits there, 8/8 elsewhere.
_base_ = './quant_channel_w8a8.py'
compression = dict(pointwise=dict(act_quant=dict(type='mmwcc.EnergyActQuantizer', bits=4)))
