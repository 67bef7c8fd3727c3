# A small network on 32x32 crops of synthetic streets (tools/dataset_converters/cifar_like.py), for
# one core.
_base_ = ['../_base_/datasets/cifar10.py', '../_base_/runtime_classification.py']
data_root = 'data/street_cifar'
model = dict(
    type='mmwcc.ImageClassifier',
    backbone=dict(type='mmwcc.WaveletNetCifar', depth=4, widths=(8, 16, 32), kappa=(0, 3, 3)),
    neck=dict(type='mmwcc.GlobalAveragePooling'),
    head=dict(type='mmwcc.LinearClsHead', num_classes=10, in_channels=32))
train_dataloader = dict(
    batch_size=64, num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root))
test_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=2e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=30, by_epoch=False),
    dict(type='PolyLR', power=1.0, eta_min=0.0, begin=0, end=6, by_epoch=True, convert_to_iter_based=True)
]
train_cfg = dict(by_epoch=True, max_epochs=6, val_interval=6)
default_hooks = dict(logger=dict(interval=20))
randomness = dict(seed=0)
