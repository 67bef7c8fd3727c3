# Stage 3 of 3: train everything with the losses of both classifiers and 0.001 times the transform
# loss, at a hundredth of the learning rate.
_base_ = './vgg8_wae-stage2_1xb128-20e_cifar10-32x32.py'
model = dict(stage=3, gamma=0.001, decomposition=dict(init_cfg=None))
load_from = 'work_dirs/vgg8_wae-stage2_1xb128-20e_cifar10-32x32/epoch_20.pth'
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = [dict(type='ConstantLR', factor=1.0, begin=0, end=5, by_epoch=True)]
train_cfg = dict(max_epochs=5)
default_hooks = dict(
    training_stage=dict(stage=3, note='all jointly, with the transform loss', needs_checkpoint=True))
