# RetinaNet with an auto-encoder in front of its backbone. All strides are doubled and the scale of
# the anchors is halved, so that the anchors keep their sizes. The auto-encoder may start from stage
# 1 on any images with the same normalization.
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
model = dict(
    type='mmwcc.WAEModel',
    task_type=_base_.model.type,
    # As in stage 1. This does not affect the pretrained backbone, because its input is normalized
    # after the auto-encoder.
    data_preprocessor=dict(std=[255., 255., 255.]),
    backbone=dict(
        _delete_=True,
        type='mmwcc.WAEBackbone',
        wae=dict(
            type='mmwcc.WAE',
            init_cfg=dict(
                type='Pretrained', checkpoint='work_dirs/wae_stage1_1xb4-20e_imagenet-224x224/epoch_20.pth')),
        # Its input is no longer an image, so no stage can stay frozen as pretrained.
        backbone={**_base_.model.backbone, 'frozen_stages': 0}),
    bbox_head=dict(anchor_generator=dict(octave_base_scale=2, strides=[16, 32, 64, 128, 256])))
# The transform loss is a sum over pixels. Here there are 21 times as many as in 224x224, too many
# for the learning rate of the detector.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'backbone.wae.': dict(lr_mult=0.001)}))
default_hooks = dict(
    compression_check=dict(type='mmwcc.CompressionCheckHook'), random_state=dict(type='mmwcc.RandomStateHook'))
