# Rows of coefficients with bits by their energy, 4 on the mean over all positions; weights with a clip for each output
# channel; all other layers at 8/8 bits.
_base_ = './wcc_w8a8_k50.py'
compression = dict(
    pointwise=dict(
        keep_ratio=1.0, act_quant=dict(type='mmwcc.EnergyActQuantizer', bits=4, widths=[0, 3, 4, 5, 6, 8])),
    weight_quant=dict(per_channel=True))
