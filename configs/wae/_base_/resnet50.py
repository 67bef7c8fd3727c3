# ResNet-50 on I_L, and ResNet-50 with a quarter of the widths on I_H. The classifiers are single
# layers on pooled features.
model = dict(
    type='mmwcc.WAEClassifier',
    decomposition=dict(type='mmwcc.WAE'),
    backbone=dict(type='mmdet.ResNet', depth=50, out_indices=(3, ), norm_eval=False),
    neck=dict(type='mmwcc.GlobalAveragePooling'),
    head=dict(type='mmwcc.LinearClsHead', num_classes=1000, in_channels=2048),
    fused_head=dict(type='mmwcc.LinearClsHead', num_classes=1000, in_channels=2048 + 512))
