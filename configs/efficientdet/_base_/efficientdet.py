# EfficientDet-D0; the other sizes inherit it: `model = compound_scaling('d1')`.
model = dict(
    _scope_='mmdet',  # for projects that inherit this file as `mmwcc::efficientdet/_base_/efficientdet.py`
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=128),
    # Padding is symmetric, as in the network that the paper compresses; mmdetection's default is
    # TensorFlow's padding.
    backbone=dict(
        type='EfficientNet',
        arch='b0',
        drop_path_rate=0.1,
        out_indices=(3, 4, 5),
        conv_cfg=None,
        norm_cfg=dict(type='BN'),
        act_cfg=dict(type='SiLU')),
    neck=dict(type='mmwcc.BiFPN', in_channels=[40, 112, 320], out_channels=64, num_cells=3),
    bbox_head=dict(type='mmwcc.EfficientDetHead', num_classes=80, in_channels=64, stacked_convs=3),
    train_cfg=dict(
        assigner=dict(
            type='MaxIoUAssigner',
            pos_iou_thr=0.5,
            neg_iou_thr=0.5,
            min_pos_iou=0,
            gt_max_assign_all=False,
            ignore_iof_thr=-1),
        sampler=dict(type='PseudoSampler'),
        allowed_border=-1,
        pos_weight=-1,
        debug=False),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.001,
        nms=dict(type='nms', iou_threshold=0.5),
        max_per_img=100))
# Only the stem is not compressed. Squeeze and excitation works on maps of a single pixel, where
# wavelets have nothing to compress.
scope = dict(
    keep_dense=['first'], rules=[dict(pattern=r'.*\.se\.conv\d\.conv', type='mmwcc.QuantConv2d')])
