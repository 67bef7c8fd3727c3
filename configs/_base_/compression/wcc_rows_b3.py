# Rows of coefficients with bits by their energy, 3 on the mean over all positions; weights with a clip for each output
# channel; all other layers at 8/8 bits.
_base_ = './wcc_rows_b4.py'
compression = dict(pointwise=dict(act_quant=dict(bits=3)))
