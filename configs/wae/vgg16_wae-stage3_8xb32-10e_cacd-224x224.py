# Stage 3 of 3: train everything with the losses of both classifiers and 0.001 times the transform
# loss.
_base_ = './vgg16_wae-stage2_8xb32-90e_cacd-224x224.py'
model = dict(stage=3, gamma=0.001, decomposition=dict(init_cfg=None))
load_from = 'work_dirs/vgg16_wae-stage2_8xb32-90e_cacd-224x224/epoch_90.pth'
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [dict(type='ConstantLR', factor=1.0, begin=0, end=10, by_epoch=True)]
train_cfg = dict(max_epochs=10)
default_hooks = dict(
    training_stage=dict(stage=3, note='all jointly, with the transform loss', needs_checkpoint=True))
