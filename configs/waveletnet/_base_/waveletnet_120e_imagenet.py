# The published recipe: batches of 512, SGD with momentum 0.9, and a learning rate that falls
# linearly from 0.1 to 0 over 120 epochs. The weight decay is not published; here it is
# MobileNetV2's.
_base_ = ['../../_base_/datasets/imagenet_224x224.py', '../../_base_/runtime_classification.py']
model = dict(
    type='mmwcc.ImageClassifier',
    backbone=dict(type='mmwcc.WaveletNet', widen_factor=1.0, kappa=(0, 3, 3), out_indices=(7, )),
    neck=dict(type='mmwcc.GlobalAveragePooling'),
    head=dict(type='mmwcc.LinearClsHead', num_classes=1000, in_channels=1280))
train_dataloader = dict(batch_size=128, num_workers=8)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=4e-5))
param_scheduler = [
    dict(type='PolyLR', power=1.0, eta_min=0.0, begin=0, end=120, by_epoch=True, convert_to_iter_based=True)
]
train_cfg = dict(by_epoch=True, max_epochs=120, val_interval=1)
auto_scale_lr = dict(enable=False, base_batch_size=512)
