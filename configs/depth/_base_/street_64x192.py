# Drives through synthetic streets, rendered during loading: 8 targets from each of 60 streets for
# training, and one image from each of 100 streets for validation and of 200 for testing.
_base_ = './monodepth2_mobilenetv2.py'
# The camera always moves and nothing else does, so there is nothing to mask. Masking pixels that do
# not fit yet would let the estimated motion settle on one half of the image.
model = dict(auto_mask=False, pose_net=dict(backbone=dict(base_channels=16), in_channels=128))
train_pipeline = [
    dict(type='mmwcc.RandomFlipDepthFrames'),
    dict(type='mmwcc.DepthColorJitter'),
    dict(type='mmwcc.PackDepthInputs')
]
test_pipeline = [dict(type='mmwcc.PackDepthInputs')]
street = dict(type='mmwcc.SyntheticStreetSequence', img_scale=(192, 64))
single = dict(**street, frame_ids=(), frames_per_street=1, pipeline=test_pipeline)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(**street, length=480, split='train', pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**single, length=100, split='val'))
test_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**single, length=200, split='test'))
val_evaluator = dict(type='mmwcc.DepthMetric')
test_evaluator = val_evaluator
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-3))
train_cfg = dict(type='IterBasedTrainLoop')
default_hooks = dict(
    logger=dict(interval=20, log_metric_by_epoch=False), checkpoint=dict(by_epoch=False, max_keep_ckpts=1))
log_processor = dict(by_epoch=False)
