# VGG16 on I_L, VGG16 with a quarter of the widths on I_H, and the published heads. Pooling rounds
# up: 112, 56, 28, 14, 7, 4.
model = dict(
    type='mmwcc.WAEClassifier',
    decomposition=dict(type='mmwcc.WAE'),
    backbone=dict(type='mmwcc.VGG', depth=16, ceil_mode=True),
    head=dict(
        type='mmwcc.LinearClsHead',
        num_classes=1000,
        in_channels=512 * 4 * 4,
        hidden_channels=(1024, 1024),
        dropout=0.5,
        init_cfg=dict(type='Xavier', layer='Linear')),
    fused_head=dict(
        type='mmwcc.LinearClsHead',
        num_classes=1000,
        in_channels=(512 + 128) * 4 * 4,
        hidden_channels=(2048, 2048),
        dropout=0.5,
        init_cfg=dict(type='Xavier', layer='Linear')))
