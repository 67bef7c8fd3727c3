# Monodepth2 with MobileNetV2 and a separable decoder. mmdet's MobileNetV2 ends with a convolution
# from 320 to 1280 channels like torchvision's; mmseg's does not. Three parts stay dense: the first
# convolution, those that predict disparities, and the pose network, which is needed only for
# training.
_base_ = '../../_base_/runtime_classification.py'
model = dict(
    type='mmwcc.Monodepth2',
    data_preprocessor=dict(
        type='mmwcc.DepthDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(type='mmdet.MobileNetV2', out_indices=(0, 1, 2, 4, 7)),
    decoder=dict(type='mmwcc.DepthDecoder', in_channels=[16, 24, 32, 96, 1280]),
    pose_net=dict(
        type='mmwcc.PoseNetwork',
        backbone=dict(type='mmdet.ResNet', depth=18, out_indices=(3, ), norm_eval=False),
        in_channels=512))
keep_dense = ['first', r'decoder\.dispconvs\..*', r'pose_net\..*']
randomness = dict(seed=0)
