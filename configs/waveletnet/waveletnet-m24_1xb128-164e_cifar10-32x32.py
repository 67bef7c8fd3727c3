# The published recipe: SGD with momentum 0.9, a learning rate of 0.1 and of 0.01 from epoch 82 on,
# weight decay 2e-4, batches of 128, crops after padding by 4 pixels, and flips. The end is not
# published; 164 epochs are the 64,000 iterations of the ResNets from which the recipe is taken.
_base_ = ['../_base_/datasets/cifar10.py', '../_base_/runtime_classification.py']
model = dict(
    type='mmwcc.ImageClassifier',
    backbone=dict(type='mmwcc.WaveletNetCifar', depth=24, widths=(16, 32, 64), kappa=(0, 3, 3)),
    neck=dict(type='mmwcc.GlobalAveragePooling'),
    head=dict(type='mmwcc.LinearClsHead', num_classes=10, in_channels=64))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=2e-4))
param_scheduler = [dict(type='MultiStepLR', milestones=[82], gamma=0.1, begin=0, end=164, by_epoch=True)]
train_cfg = dict(by_epoch=True, max_epochs=164, val_interval=1)
