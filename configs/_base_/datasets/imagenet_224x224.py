# ImageNet, or any folder with train/ and val/ and one sub-folder for each class: short side 256,
# crops of 224, random flips.
dataset_type = 'mmwcc.ImageFolder'
data_root = 'data/imagenet'
data_preprocessor = dict(
    type='mmwcc.ClsDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
# mmcv fits images into the scale. With no limit on the long side, the short side decides.
short_side_256 = (1_000_000, 256)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=short_side_256, keep_ratio=True),
    dict(type='mmwcc.PadRandomCrop', crop_size=224),
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmwcc.PackClsInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=short_side_256, keep_ratio=True),
    dict(type='CenterCrop', crop_size=224),
    # For robustness to noise: --cfg-options test_dataloader.dataset.pipeline.3.variance=0.05
    dict(type='mmwcc.GaussianNoise', variance=0.0),
    dict(type='mmwcc.PackClsInputs')
]
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type=dataset_type, data_root=data_root, data_prefix='train', pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type=dataset_type, data_root=data_root, data_prefix='val', test_mode=True, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='mmwcc.Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
