# Stage 2 of 3: train the networks on the frozen auto-encoder of stage 1.
_base_ = [
    './_base_/vgg8.py', '../_base_/datasets/cifar10.py', './_base_/sgd_cosine_20e.py',
    '../_base_/runtime_classification.py'
]
model = dict(
    stage=2,
    decomposition=dict(
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/wae_stage1_1xb128-10e_cifar10-32x32/epoch_10.pth')))
# The accuracy of the whole model, and of the classifier of the low part alone.
val_evaluator = [
    dict(type='mmwcc.Accuracy', topk=(1, 5)),
    dict(type='mmwcc.Accuracy', topk=(1, ), score='pred_score_low', prefix='low')
]
test_evaluator = val_evaluator
default_hooks = dict(
    training_stage=dict(type='mmwcc.TrainingStageHook', stage=2, note='the networks on the frozen auto-encoder'))
