_base_ = './_base_/edsr_x2c64b16_300ki_div2k-48x48.py'
model = dict(generator=dict(conv_cfg=dict(type='mmwcc.SeparableConv2d')))
