# CIFAR-10 from its original files: crops of 32 from 40 pixels and random flips in training, whole
# images in testing.
dataset_type = 'mmwcc.CIFAR10'
data_root = 'data/cifar10'
# Images are loaded in RGB order.
data_preprocessor = dict(
    type='mmwcc.ClsDataPreprocessor', mean=[125.307, 122.961, 113.8575], std=[51.5865, 50.847, 51.255])
train_pipeline = [
    dict(type='mmwcc.PadRandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmwcc.PackClsInputs')
]
test_pipeline = [
    # For robustness to noise: --cfg-options test_dataloader.dataset.pipeline.0.variance=0.05
    dict(type='mmwcc.GaussianNoise', variance=0.0),
    dict(type='mmwcc.PackClsInputs')
]
train_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type=dataset_type, data_root=data_root, split='train', pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=250,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type=dataset_type, data_root=data_root, split='test', test_mode=True, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='mmwcc.Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
