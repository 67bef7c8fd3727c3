# Stage 2 of 3: train the networks on the frozen auto-encoder of stage 1.
_base_ = [
    './_base_/vgg16.py', '../_base_/datasets/imagenet_224x224.py', './_base_/sgd_plateau_90e.py',
    '../_base_/runtime_classification.py'
]
# Pixels are scaled to 0 to 1, and their mean is subtracted. In units of standard deviations the
# transform loss would be 20 times as large, and joint training at the published gamma and learning
# rate diverged on CamVid.
data_preprocessor = dict(std=[255., 255., 255.])
model = dict(
    stage=2,
    decomposition=dict(
        init_cfg=dict(
            type='Pretrained', checkpoint='work_dirs/wae_stage1_1xb4-20e_imagenet-224x224/epoch_20.pth')))
default_hooks = dict(
    training_stage=dict(type='mmwcc.TrainingStageHook', stage=2, note='the networks on the frozen auto-encoder'))
