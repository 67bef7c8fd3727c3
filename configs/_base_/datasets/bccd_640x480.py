# Blood cells of three kinds in 364 images of 640x480: 205 for training, 87 for validation and 72
# for testing. Boxes are in the Pascal VOC format, in
# data/bccd/BCCD/{Annotations,ImageSets/Main,JPEGImages} as in
# https://github.com/Shenggan/BCCD_Dataset.
dataset_type = 'mmwcc.XMLBoxDataset'
data_root = 'data/bccd/'
img_scale = (640, 480)
bccd = dict(
    type=dataset_type,
    data_root=data_root,
    data_prefix=dict(sub_data_root='BCCD/'),
    metainfo=dict(classes=('RBC', 'WBC', 'Platelets'), palette=[(220, 20, 60), (119, 11, 32), (0, 0, 142)]))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=img_scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=img_scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
]
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        **bccd,
        ann_file='BCCD/ImageSets/Main/train.txt',
        # Two of the boxes have no extent.
        filter_cfg=dict(filter_empty_gt=True, min_size=32, bbox_min_size=1),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**bccd, ann_file='BCCD/ImageSets/Main/val.txt', test_mode=True, pipeline=test_pipeline))
test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**bccd, ann_file='BCCD/ImageSets/Main/test.txt', test_mode=True, pipeline=test_pipeline))
val_evaluator = dict(type='VOCMetric', metric='mAP', eval_mode='area')
test_evaluator = val_evaluator
