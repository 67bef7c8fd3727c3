# DIV2K with the small images of the benchmark: 800 for training, 100 for validation.
_base_ = './edsr_x2c64b16.py'
data_root = 'data/DIV2K'
train_pipeline = [
    dict(type='mmwcc.LoadImagePair', scale=2),
    dict(type='mmwcc.PairedRandomCrop', crop_size=48),
    dict(type='mmwcc.PairedRandomFlipRotate'),
    dict(type='mmwcc.PackImagePair')
]
test_pipeline = [dict(type='mmwcc.LoadImagePair', scale=2), dict(type='mmwcc.PackImagePair')]
train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='mmwcc.SuperResolutionDataset',
        data_root=data_root,
        data_prefix=dict(gt='DIV2K_train_HR', img='DIV2K_train_LR_bicubic/X2'),
        img_tmpl='{}x2',
        pipeline=train_pipeline))
# The batch size is 1, because images differ in size.
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmwcc.SuperResolutionDataset',
        data_root=data_root,
        data_prefix=dict(gt='DIV2K_valid_HR', img='DIV2K_valid_LR_bicubic/X2'),
        img_tmpl='{}x2',
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='mmwcc.SuperResolutionMetric', crop_border=8, color=('rgb', ), bicubic=True)
test_evaluator = val_evaluator
