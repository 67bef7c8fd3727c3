# One network on I_L of the frozen auto-encoder of stage 1 alone.
_base_ = [
    './_base_/vgg8.py', '../_base_/datasets/cifar10.py', './_base_/sgd_cosine_20e.py',
    '../_base_/runtime_classification.py'
]
model = dict(
    stage=2,
    fused_head=None,
    decomposition=dict(
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/wae_stage1_1xb128-10e_cifar10-32x32/epoch_10.pth')))
