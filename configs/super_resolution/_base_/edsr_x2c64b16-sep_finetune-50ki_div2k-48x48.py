# One step of compression on DIV2K: 50,000 iterations at the learning rate with which the dense
# recipe ends.
_base_ = '../edsr_x2c64b16-sep_dense_300ki_div2k-48x48.py'
head_and_tail = ['first', r'generator\.upsample\..*', 'last']
optim_wrapper = dict(optimizer=dict(lr=5e-5))
param_scheduler = [dict(type='MultiStepLR', milestones=[35000], gamma=0.5, begin=0, end=50000, by_epoch=False)]
train_cfg = dict(max_iters=50000, val_interval=5000)
