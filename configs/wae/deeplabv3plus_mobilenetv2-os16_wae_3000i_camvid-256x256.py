# DeepLabV3+ with an auto-encoder in front of its backbone. The features have twice the stride.
_base_ = '../wcc/deeplabv3plus_mobilenetv2-os16_dense_3000i_camvid-256x256.py'
model = dict(
    type='mmwcc.WAEModel',
    task_type=_base_.model.type,
    backbone=dict(
        _delete_=True,
        type='mmwcc.WAEBackbone',
        # The published 0.001 is for pixels from 0 to 1. Here they are in units of standard
        # deviations, which makes the loss 20 times as large.
        gamma=5e-5,
        wae=dict(
            type='mmwcc.WAE',
            init_cfg=dict(
                type='Pretrained', checkpoint='work_dirs/wae_stage1_400i_camvid-256x256/iter_400.pth')),
        backbone=_base_.model.backbone))
# The transform loss is a sum over pixels, so the auto-encoder would diverge at the learning rate of
# the segmentor.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'backbone.wae.': dict(lr_mult=0.01)}))
default_hooks = dict(
    training_stage=dict(
        type='mmwcc.TrainingStageHook', stage=2, stages=2, note='the segmentor and the auto-encoder jointly'))
