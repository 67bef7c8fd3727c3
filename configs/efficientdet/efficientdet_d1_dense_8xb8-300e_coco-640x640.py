# EfficientDet's own recipe. The backbone starts from published weights, which were trained with
# TensorFlow's padding. README.md explains how to start from the detector that the paper compresses
# instead.
_base_ = './_base_/coco_640x640.py'
from mmwcc.models.detection import compound_scaling  # noqa: E402

model = compound_scaling('d1')
model['backbone'].update(
    init_cfg=dict(
        type='Pretrained',
        prefix='backbone.',
        checkpoint='https://download.openmmlab.com/mmclassification/v0/efficientnet/efficientnet-b1_3rdparty_8xb32-aa_in1k_20220119-619d8ae3.pth'))  # noqa: E501
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.08, momentum=0.9, weight_decay=4e-5), clip_grad=dict(max_norm=10, norm_type=2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=1, end=300, convert_to_iter_based=True)
]
train_cfg = dict(max_epochs=300, val_interval=10)
default_hooks = dict(
    checkpoint=dict(interval=10, max_keep_ckpts=2),
    ema=dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.0002, update_buffers=True))
