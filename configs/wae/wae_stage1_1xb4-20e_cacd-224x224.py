# Stage 1 of 3 as published: the auto-encoder alone. The learning rate is so small because the
# transform loss is a sum over pixels.
_base_ = ['../_base_/datasets/cacd_224x224.py', '../_base_/runtime_classification.py']
# Pixels are scaled to 0 to 1, and their mean is subtracted. In units of standard deviations the
# transform loss would be 20 times as large, and joint training at the published gamma and learning
# rate diverged on CamVid.
data_preprocessor = dict(std=[255., 255., 255.])
model = dict(type='mmwcc.WAE')
train_dataloader = dict(batch_size=4)
val_evaluator = dict(_delete_=True, type='mmwcc.ReconstructionPSNR')
test_evaluator = dict(_delete_=True, type='mmwcc.ReconstructionPSNR')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1e-6, momentum=0.9, weight_decay=5e-4))
param_scheduler = [dict(type='MultiStepLR', milestones=[10], gamma=0.1, begin=0, end=20, by_epoch=True)]
train_cfg = dict(by_epoch=True, max_epochs=20, val_interval=1)
default_hooks = dict(
    training_stage=dict(type='mmwcc.TrainingStageHook', stage=1, note='the auto-encoder alone'),
    wae_figure=dict(type='mmwcc.WAEFigureHook'))
