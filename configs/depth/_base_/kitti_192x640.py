# KITTI's raw drives: the 39,810 triplets of Zhou's split for training, and Eigen's 697 images for
# testing.
_base_ = './monodepth2_mobilenetv2.py'
data_root = 'data/kitti_raw'
train_pipeline = [
    dict(type='mmwcc.LoadDepthFrames'),
    dict(type='mmwcc.ResizeDepthFrames', scale=(640, 192)),
    dict(type='mmwcc.RandomFlipDepthFrames'),
    dict(type='mmwcc.DepthColorJitter'),
    dict(type='mmwcc.PackDepthInputs')
]
test_pipeline = [
    dict(type='mmwcc.LoadDepthFrames'),
    dict(type='mmwcc.LoadVelodyneDepth'),
    dict(type='mmwcc.ResizeDepthFrames', scale=(640, 192)),
    dict(type='mmwcc.PackDepthInputs')
]
train_dataloader = dict(
    batch_size=12,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='mmwcc.KITTIRawDataset',
        data_root=data_root,
        ann_file='splits/eigen_zhou/train_files.txt',
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmwcc.KITTIRawDataset',
        data_root=data_root,
        ann_file='splits/eigen/test_files.txt',
        frame_ids=(),
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='mmwcc.DepthMetric', crop='garg')
test_evaluator = val_evaluator
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1.4e-4, weight_decay=1e-3))
param_scheduler = [dict(type='MultiStepLR', milestones=[15], gamma=0.1, begin=0, end=20, by_epoch=True)]
train_cfg = dict(by_epoch=True, max_epochs=20, val_interval=5)
