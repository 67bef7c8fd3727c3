# One step of compression of RetinaNet on COCO: mmdetection's 1x schedule at a tenth of its learning
# rate.
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
# Weights come from `load_from`. The dense model is trained with its first stage frozen, but the
# compressed stage has to adapt.
model = dict(backbone=dict(init_cfg=None, frozen_stages=0))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
default_hooks = dict(
    compression_check=dict(type='mmwcc.CompressionCheckHook'), random_state=dict(type='mmwcc.RandomStateHook'))
