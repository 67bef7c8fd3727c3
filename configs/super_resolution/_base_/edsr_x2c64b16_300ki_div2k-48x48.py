# The recipe of EDSR's authors: 300,000 iterations of 16 crops, Adam at 1e-4, halved after 200,000.
_base_ = './div2k_x2.py'
param_scheduler = [dict(type='MultiStepLR', milestones=[200000], gamma=0.5, begin=0, end=300000, by_epoch=False)]
train_cfg = dict(max_iters=300000, val_interval=5000)
