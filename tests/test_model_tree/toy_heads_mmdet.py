"""The heads of mmdetection 3.3.0 in small: configs after its model zoo, and how they run."""

from importlib.util import find_spec

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from toy_heads import DEFORMABLE_PIXEL_DECODER, PIXEL_DECODER, maps, mask_former

DENSE = dict(num_classes=3, in_channels=32, feat_channels=32)
TOWER = dict(DENSE, stacked_convs=1)
RPN = dict(in_channels=32, feat_channels=32)
POINTS = dict(
    anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16]),
    bbox_coder=dict(type='DistancePointBBoxCoder'),
)
ONE_ANCHOR = dict(
    anchor_generator=dict(
        type='AnchorGenerator',
        ratios=[1.0],
        octave_base_scale=8,
        scales_per_octave=1,
        strides=[8, 16, 32, 64, 128],
    )
)
SSD = dict(
    num_classes=3,
    in_channels=[8] * 3,
    anchor_generator=dict(
        type='SSDAnchorGenerator',
        scale_major=False,
        input_size=300,
        strides=[8, 16, 32],
        ratios=[[2]] * 3,
        basesize_ratio_range=(0.15, 0.9),
    ),
)
SSD_LITE = dict(
    SSD,
    use_depthwise=True,
    stacked_convs=1,
    feat_channels=8,
    norm_cfg=dict(type='BN'),
    act_cfg=dict(type='ReLU6'),
)
GRIDS = dict(num_grids=[4, 4, 4, 4, 4])
SOLO_MASKS = dict(
    feat_channels=8, start_level=0, end_level=3, out_channels=8, norm_cfg=dict(type='BN')
)
CONDINST_MASKS = dict(
    loss_mask=dict(type='DiceLoss'),
    mask_feature_head=dict(
        in_channels=8,
        feat_channels=8,
        start_level=0,
        end_level=2,
        out_channels=8,
        mask_stride=8,
        num_stacked_convs=1,
        norm_cfg=dict(type='BN'),
    ),
)
PROTOTYPES = dict(
    num_classes=3,
    in_channels=32,
    num_protos=4,
    proto_channels=(8, None, 8, 4),
    proto_kernel_sizes=(3, -2, 3, 1),
)
DETR = dict(num_classes=3, embed_dims=8, loss_cls=dict(type='FocalLoss', use_sigmoid=True))
DEFORMABLE = dict(DETR, num_pred_layer=3)
PANOPTIC = dict(num_things_classes=2, num_stuff_classes=1)

ROI = dict(roi_feat_size=4, num_classes=3)
FC = dict(ROI, in_channels=8, fc_out_channels=8)
MASK = dict(ROI, num_convs=1, in_channels=8, conv_out_channels=8)
EMBED = dict(
    num_convs=1, num_fcs=1, roi_feat_size=4, in_channels=8, conv_out_channels=8, fc_out_channels=8
)
DYNAMIC_CONV = dict(
    type='DynamicConv', in_channels=8, feat_channels=4, out_channels=8, input_feat_shape=4
)
SEMANTIC = dict(
    num_ins=2, fusion_level=0, num_convs=2, in_channels=8, conv_out_channels=8, num_classes=3
)


def one(head):
    return head(maps(32))


def two(head):
    return head(maps(32, 32))


def three(head):
    return head(maps(8, 8, 8))


def corners(head):
    return head(maps(8, 8, halved=False))


def four(head):
    return head(maps(8, 8, 8, 8))


def five(head):
    return head(maps(32, 32, 32, 32, 32))


def with_samples(head):
    sample = DetDataSample(metainfo=dict(batch_input_shape=(64, 64), img_shape=(64, 64)))
    return head(maps(8, 8, 8, 8), [sample, sample])


def queries(layers=3) -> tuple:
    return torch.randn(layers, 2, 4, 8), torch.rand(layers, 2, 4, 4)


def decoded(head):
    return head(*queries())


def decoded_with_text(head):
    return head(*queries(), torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool))


def with_words(head):
    return head(maps(32, 32, 32, 32, 32), dict(embedded=torch.randn(2, 4, 768), masks=None))


def dense_and_sparse_queries(head):
    """Run what only training runs, then the branches that the detector runs on the encoder."""
    head.cache_dict = dict(num_dense_queries=2)
    trained = head(*queries(2))
    return trained, head.eval()(*queries(4))


def rois(head):
    return head(torch.randn(2, 8, 4, 4))


def pairs_of_rois(head):
    return head(torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4))


def proposals(head):
    return head(torch.randn(4, 8, 4, 4), torch.randn(2, 2, 8))


def with_coefficients(head):
    return head(maps(32), [InstanceData(coeffs=torch.randn(2, 4)) for _ in range(2)])


def with_kernels(head):
    found = InstanceData(
        param_preds=torch.randn(2, 169), points=torch.rand(2, 2), strides=torch.ones(2)
    )
    return head(maps(8, 8, 8), [found, found])


def first(run):
    """Leave out the features that a head hands on beside its predictions."""
    return lambda head: run(head)[0]


DENSE_HEADS = {
    'ATSSHead': [(TOWER, five)],
    'ATSSVLFusionHead': [(dict(TOWER, **ONE_ANCHOR, num_dyhead_blocks=1), with_words)],
    'AnchorHead': [(DENSE, five)],
    'AutoAssignHead': [(TOWER, five)],
    'BoxInstBboxHead': [(TOWER, five)],
    'BoxInstMaskHead': [(CONDINST_MASKS, with_kernels)],
    'CenterNetHead': [(DENSE, one)],
    'CenterNetUpdateHead': [(TOWER, five)],
    'CentripetalHead': [(dict(num_classes=3, in_channels=8, corner_emb_channels=0), corners)],
    'CondInstBboxHead': [(TOWER, five), (dict(TOWER, centerness_on_reg=True), five)],
    'CondInstMaskHead': [(CONDINST_MASKS, with_kernels)],
    'ConditionalDETRHead': [(DETR, lambda head: head(queries()[0], torch.rand(2, 4, 2)))],
    'CornerHead': [(dict(num_classes=3, in_channels=8), corners)],
    'DABDETRHead': [(DETR, decoded)],
    'DDODHead': [(TOWER, lambda head: head(maps(*[32] * 5, size=64)))],
    'DDQDETRHead': [(DEFORMABLE, dense_and_sparse_queries)],
    'DETRHead': [(DETR, lambda head: head(queries()[0]))],
    'DINOHead': [(DEFORMABLE, decoded)],
    'DecoupledSOLOHead': [(dict(TOWER, **GRIDS), five)],
    'DecoupledSOLOLightHead': [(dict(TOWER, **GRIDS), five)],
    'DeformableDETRHead': [
        (DEFORMABLE, decoded),
        (dict(DEFORMABLE, share_pred_layer=True), decoded),
    ],
    'FCOSHead': [(TOWER, five)],
    'FSAFHead': [(TOWER, five)],
    'FoveaHead': [(TOWER, five), (dict(TOWER, with_deform=True, deform_groups=1), five)],
    'FreeAnchorRetinaHead': [(TOWER, five)],
    'GARPNHead': [(dict(RPN, deform_groups=1), five)],
    'GARetinaHead': [(dict(TOWER, deform_groups=1), five)],
    'GFLHead': [(dict(TOWER, **ONE_ANCHOR), five)],
    'GroundingDINOHead': [(DEFORMABLE, decoded_with_text)],
    'GuidedAnchorHead': [(dict(DENSE, deform_groups=1), five)],
    'LADHead': [(TOWER, five)],
    'LDHead': [
        (dict(TOWER, **ONE_ANCHOR, loss_ld=dict(type='KnowledgeDistillationKLDivLoss')), five)
    ],
    'Mask2FormerHead': [(mask_former(DEFORMABLE_PIXEL_DECODER, **PANOPTIC), with_samples)],
    'MaskFormerHead': [(mask_former(PIXEL_DECODER, **PANOPTIC), with_samples)],
    'NASFCOSHead': [(TOWER, five)],
    'PAAHead': [(TOWER, five)],
    'PISARetinaHead': [(TOWER, five)],
    'PISASSDHead': [(SSD, three)],
    'RPNHead': [(RPN, five), (dict(RPN, num_convs=2), five)],
    'RTMDetHead': [
        (dict(TOWER, **POINTS), two),
        (dict(TOWER, **POINTS, with_objectness=False), two),
    ],
    'RTMDetInsHead': [(dict(TOWER, **POINTS), two)],
    'RTMDetInsSepBNHead': [
        (dict(TOWER, **POINTS), two),
        (dict(TOWER, **POINTS, with_objectness=True), two),
    ],
    'RTMDetSepBNHead': [
        (dict(TOWER, **POINTS), two),
        (dict(TOWER, **POINTS, with_objectness=False, share_conv=False, use_depthwise=True), two),
    ],
    'RepPointsHead': [(dict(TOWER, point_feat_channels=32), five)],
    'RetinaHead': [(TOWER, five), (dict(TOWER, stacked_convs=0), five)],
    'RetinaSepBNHead': [(dict(TOWER, num_ins=5, norm_cfg=dict(type='BN')), five)],
    'SABLRetinaHead': [(TOWER, five)],
    'SOLOHead': [(dict(TOWER, **GRIDS), five)],
    'SOLOV2Head': [(dict(TOWER, **GRIDS, mask_feature_head=SOLO_MASKS), five)],
    'SSDHead': [(SSD, three), (SSD_LITE, three)],
    'StageCascadeRPNHead': [
        (dict(RPN, bridged_feature=True), lambda head: five(head)[1:]),
        (dict(RPN, with_cls=False), lambda head: five(head)[2]),
    ],
    'TOODHead': [(dict(TOWER, stacked_convs=2, **ONE_ANCHOR), five)],
    'VFNetHead': [(TOWER, five)],
    'YOLACTHead': [(dict(DENSE, num_protos=4), five)],
    'YOLACTProtonet': [
        (PROTOTYPES, with_coefficients),
        (
            dict(
                PROTOTYPES, proto_channels=(8, 4), proto_kernel_sizes=(3, 1), with_seg_branch=False
            ),
            with_coefficients,
        ),
    ],
    'YOLOFHead': [
        (
            dict(
                DENSE,
                anchor_generator=dict(
                    type='AnchorGenerator', ratios=[1.0], scales=[1, 2], strides=[32]
                ),
            ),
            one,
        )
    ],
    'YOLOV3Head': [(dict(num_classes=3, in_channels=[8] * 3, out_channels=[8] * 3), three)],
    'YOLOXHead': [(dict(TOWER, in_channels=8, feat_channels=8), three)],
}

ROI_HEADS = {
    'BBoxHead': [(dict(ROI, in_channels=8), lambda head: head(torch.randn(2, 8 * 4 * 4)))],
    'CoarseMaskHead': [(dict(MASK, fc_out_channels=8), rois)],
    'ConvFCBBoxHead': [
        (dict(FC, num_shared_fcs=1), rois),
        (
            dict(
                FC,
                num_cls_convs=1,
                num_cls_fcs=1,
                num_reg_convs=1,
                num_reg_fcs=1,
                conv_out_channels=8,
            ),
            rois,
        ),
        (
            dict(
                FC,
                num_shared_fcs=1,
                cls_predictor_cfg=dict(type='NormedLinear'),
                reg_predictor_cfg=dict(type='NormedLinear'),
            ),
            rois,
        ),
    ],
    'DIIHead': [
        (
            dict(
                num_classes=3,
                num_heads=2,
                feedforward_channels=8,
                in_channels=8,
                dynamic_conv_cfg=DYNAMIC_CONV,
            ),
            lambda head: proposals(head)[:2],
        )
    ],
    'DoubleConvFCBBoxHead': [
        (dict(FC, num_convs=1, num_fcs=1, conv_out_channels=8, with_avg_pool=True), pairs_of_rois)
    ],
    'DynamicMaskHead': [
        (dict(MASK, dynamic_conv_cfg=dict(DYNAMIC_CONV, with_proj=False)), proposals)
    ],
    'FCNMaskHead': [
        (MASK, rois),
        (dict(MASK, upsample_cfg=dict(type='nearest', scale_factor=2)), rois),
        (dict(MASK, predictor_cfg=dict(type='mmdet.NormedConv2d')), rois),
    ],
    'FusedSemanticHead': [(SEMANTIC, first(lambda head: head(maps(8, 8))))],
    'GlobalContextHead': [
        (
            dict(num_convs=1, in_channels=8, conv_out_channels=8, num_classes=3),
            first(lambda head: head(maps(8))),
        )
    ],
    'GridHead': [
        (
            dict(
                num_convs=1,
                roi_feat_size=4,
                in_channels=8,
                point_feat_channels=4,
                norm_cfg=dict(type='GN', num_groups=36),
            ),
            rois,
        )
    ],
    'HTCMaskHead': [(MASK, first(pairs_of_rois))],
    'MaskIoUHead': [
        (
            dict(FC, num_convs=1, num_fcs=1, conv_out_channels=8),
            lambda head: head(torch.randn(2, 8, 4, 4), torch.randn(2, 8, 8)),
        )
    ],
    'MaskPointHead': [
        (
            dict(num_classes=3, num_fcs=1, in_channels=8, fc_channels=8),
            lambda head: head(torch.randn(2, 8, 5), torch.randn(2, 3, 5)),
        )
    ],
    'MultiInstanceBBoxHead': [
        (dict(FC, num_classes=1), rois),
        (dict(FC, num_classes=1, with_refine=True), rois),
    ],
    'SABLHead': [
        (
            dict(
                ROI,
                cls_in_channels=8,
                reg_in_channels=8,
                cls_out_channels=8,
                reg_offset_out_channels=8,
                reg_cls_out_channels=8,
                bbox_coder=dict(type='BucketingBBoxCoder', num_buckets=8, scale_factor=1.7),
            ),
            rois,
        )
    ],
    'SCNetBBoxHead': [(dict(FC, num_shared_fcs=1), rois)],
    'SCNetMaskHead': [(dict(MASK, num_convs=2), rois)],
    'SCNetSemanticHead': [(SEMANTIC, first(lambda head: head(maps(8, 8))))],
    'Shared2FCBBoxHead': [(FC, rois)],
    'Shared4Conv1FCBBoxHead': [(dict(FC, conv_out_channels=8), rois)],
}

HEADS = {
    **DENSE_HEADS,
    **ROI_HEADS,
    'LinearReIDHead': [
        (
            dict(
                num_fcs=1,
                in_channels=8,
                fc_channels=8,
                out_channels=8,
                loss_triplet=dict(type='TripletLoss'),
            ),
            lambda head: head((torch.randn(2, 8),)),
        )
    ],
    'Mask2FormerTrackHead': [
        (
            dict(
                mask_former(DEFORMABLE_PIXEL_DECODER, num_classes=3),
                positional_encoding=dict(
                    type='SinePositionalEncoding3D', num_feats=4, normalize=True
                ),
            ),
            lambda head: head(maps(8, 8, 8, 8), None),
        )
    ],
    'PanopticFPNHead': [
        (dict(PANOPTIC, in_channels=8, inner_channels=32), lambda head: four(head)['seg_preds'])
    ],
    'QuasiDenseEmbedHead': [
        (dict(EMBED, embed_channels=8, loss_track_aux=dict(type='MarginL2Loss')), rois)
    ],
    'RoIEmbedHead': [
        (
            dict(EMBED, num_fcs=2),
            lambda head: head(torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4), [1, 1], [1, 1]),
        )
    ],
}

# Registered beside the heads, without predictions of their own.
OTHERS = {
    'AnchorFreeHead': 'abstract',
    'BasePanopticFusionHead': 'abstract',
    'BaseSemanticHead': 'abstract',
    'DyHead': 'a neck',
    'CascadeRPNHead': 'a list of StageCascadeRPNHead',
    'EmbeddingRPNHead': 'boxes and features that are learned and not predicted',
    'FeatureRelayHead': 'features for the mask head of SCNet',
    'GenericRoIExtractor': 'features of regions',
    'ResLayer': 'features that several heads share',
    'SingleRoIExtractor': 'features of regions',
    **dict.fromkeys(['HeuristicFusionHead', 'MaskFormerFusionHead'], 'merges results'),
    **dict.fromkeys(['QuasiDenseTrackHead', 'RoITrackHead'], 'holds an embedding head'),
    **dict.fromkeys(
        [
            'CascadeRoIHead',
            'DoubleHeadRoIHead',
            'DynamicRoIHead',
            'GridRoIHead',
            'HybridTaskCascadeRoIHead',
            'MaskScoringRoIHead',
            'MultiInstanceRoIHead',
            'PISARoIHead',
            'PointRendRoIHead',
            'SCNetRoIHead',
            'SparseRoIHead',
            'StandardRoIHead',
            'TridentRoIHead',
        ],
        'holds heads for boxes and masks',
    ),
}

# What needs a package that is not installed.
MISSING = {
    name: package
    for name, package in (('ATSSVLFusionHead', 'transformers'), ('LinearReIDHead', 'mmpretrain'))
    if find_spec(package) is None
}

# Heads that only onedl-mmdetection has. CLRNet has three stages and is trained with a segmentation.
if 'CLRHead' in MODELS.module_dict:
    HEADS['CLRHead'] = [
        (
            dict(num_points=8, prior_feat_channels=8, fc_hidden_dim=8, num_priors=32, num_fc=1)
            | dict(sample_points=4, img_w=64, img_h=32),
            lambda head: head(maps(8, 8, 8, size=32), None, training=True),
        )
    ]
