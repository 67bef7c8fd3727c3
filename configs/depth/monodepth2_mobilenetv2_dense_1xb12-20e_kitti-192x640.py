_base_ = './_base_/kitti_192x640.py'
model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://mmdet/mobilenet_v2')),
    pose_net=dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18'))))
