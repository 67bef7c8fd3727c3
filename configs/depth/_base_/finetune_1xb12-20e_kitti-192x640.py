# One step of compression: as long as the dense training, from the checkpoint of the step before.
_base_ = '../monodepth2_mobilenetv2_dense_1xb12-20e_kitti-192x640.py'
model = dict(backbone=dict(init_cfg=None), pose_net=dict(backbone=dict(init_cfg=None)))
