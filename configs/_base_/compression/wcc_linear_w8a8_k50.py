# Wavelet compression of convolutions and linear layers: 8-bit weights and activations, half of the
# coefficients kept.
_base_ = './wcc_w8a8_k50.py'
compression = dict(
    linear=dict(
        type='mmwcc.WaveletCompressedLinear', keep_ratio=0.5, levels=3, wavelet='haar', selection='energy'))
