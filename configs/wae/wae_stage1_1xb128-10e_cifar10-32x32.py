# Stage 1 of 3 on small images. The optimizer is Adam, because the published learning rate of SGD
# belongs to sums over 224x224 pixels.
_base_ = ['../_base_/datasets/cifar10.py', '../_base_/runtime_classification.py']
model = dict(type='mmwcc.WAE')
val_evaluator = dict(_delete_=True, type='mmwcc.ReconstructionPSNR')
test_evaluator = dict(_delete_=True, type='mmwcc.ReconstructionPSNR')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=2e-3))
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=1e-4, begin=0, end=10, by_epoch=True)]
train_cfg = dict(by_epoch=True, max_epochs=10, val_interval=5)
default_hooks = dict(
    training_stage=dict(type='mmwcc.TrainingStageHook', stage=1, note='the auto-encoder alone'),
    wae_figure=dict(type='mmwcc.WAEFigureHook', num_images=8))
