# Wavelet compression with 8-bit weights, 8-bit activations, half of the coefficients kept.
compression = dict(
    pointwise=dict(
        type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5, levels=3, wavelet='haar', selection='energy'),
    other=dict(type='mmwcc.QuantConv2d'),
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8, normalize=None),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
    keep_dense=['first', 'last'],
    rules=[])
# For the optimizer: optim_wrapper = dict(paramwise_cfg=_base_.quantizer_paramwise)
quantizer_paramwise = dict(custom_keys={'clip_alpha': dict(lr_mult=0.1, decay_mult=0.0)})
