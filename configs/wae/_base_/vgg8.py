# A VGG for 32x32 images: the first four stages of VGG11 (six convolutions) at half width, with
# BatchNorm.
model = dict(
    type='mmwcc.WAEClassifier',
    decomposition=dict(type='mmwcc.WAE'),
    backbone=dict(type='mmwcc.VGG', depth=11, base_channels=32, num_stages=4, norm_cfg=dict(type='BN')),
    neck=dict(type='mmwcc.GlobalAveragePooling'),
    head=dict(
        type='mmwcc.LinearClsHead', num_classes=10, in_channels=256, hidden_channels=(128, ), dropout=0.5),
    fused_head=dict(
        type='mmwcc.LinearClsHead', num_classes=10, in_channels=320, hidden_channels=(256, ), dropout=0.5))
