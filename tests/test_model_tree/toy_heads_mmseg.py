"""The heads of mmsegmentation 1.2.2 in small: configs after its model zoo, and how they run."""

import torch
from mmdet.structures import DetDataSample
from toy_heads import DEFORMABLE_PIXEL_DECODER, PIXEL_DECODER, maps, mask_former

BASE = dict(in_channels=8, channels=8, num_classes=3, norm_cfg=dict(type='BN'))
PYRAMID = dict(BASE, in_channels=[8] * 4, in_index=[0, 1, 2, 3])
SELECT = dict(input_transform='multiple_select')


def one(head):
    return head(maps(8))


def pyramid(head):
    return head(maps(8, 8, 8, 8))


def levels(head):
    return head(maps(8, 8, 8, 8, halved=False))


def with_class_tokens(head):
    return head([(x, torch.randn(2, 8)) for x in maps(8, 8, 8, 8, halved=False)])


def with_samples(head):
    sample = DetDataSample(metainfo=dict(batch_input_shape=(64, 64), img_shape=(64, 64)))
    return head(maps(8, 8, 8, 8), [sample, sample])


def with_clip(head):
    features = [(x, torch.randn(2, 8)) for x in maps(8, 8, halved=False)]
    return head((torch.randn(2, 3, 64, 64), features, torch.randn(4, 8)), [1])


STAGE = dict(
    type='KernelUpdateHead',
    num_classes=3,
    num_heads=2,
    num_mask_fcs=1,
    feedforward_channels=8,
    in_channels=8,
    out_channels=8,
    feat_transform_cfg=dict(conv_cfg=dict(type='Conv2d'), act_cfg=None),
    kernel_updator_cfg=dict(
        type='mmseg.KernelUpdator', in_channels=8, feat_channels=8, out_channels=8
    ),
)
SAN = dict(
    num_classes=3,
    deep_supervision_idxs=[1],
    train_cfg={},
    san_cfg=dict(
        in_channels=3,
        clip_channels=8,
        embed_dims=8,
        num_queries=2,
        fusion_index=[0, 1],
        cfg_encoder=dict(num_encode_layer=2, num_heads=2, mlp_ratio=1),
        cfg_decoder=dict(
            num_heads=2, num_layers=1, embed_channels=8, mlp_channels=8, num_mlp=2, rescale=True
        ),
    ),
    maskgen_cfg=dict(sos_token_num=2, num_layers=1, embed_dims=8, num_heads=2, out_dims=8),
)

HEADS = {
    'ANNHead': [
        (
            dict(BASE, in_channels=[8, 8], in_index=[0, 1], project_channels=4),
            lambda head: head(maps(8, 8, halved=False)),
        )
    ],
    'APCHead': [(dict(BASE, pool_scales=(1, 2)), one)],
    'ASPPHead': [(dict(BASE, dilations=(1, 2)), one)],
    'CCHead': [(BASE, one)],
    'DAHead': [(dict(BASE, pam_channels=4), one)],
    'DDRHead': [(BASE, lambda head: head(maps(4, 8)))],
    'DMHead': [(dict(BASE, filter_sizes=(1, 3)), one)],
    'DNLHead': [(BASE, one)],
    'DPTHead': [
        (
            dict(
                PYRAMID,
                **SELECT,
                embed_dims=8,
                post_process_channels=[8] * 4,
                readout_type='project',
            ),
            with_class_tokens,
        )
    ],
    'DepthwiseSeparableASPPHead': [
        (
            dict(BASE, dilations=(1, 2), c1_in_channels=8, c1_channels=8),
            lambda head: head(maps(8, 8)),
        )
    ],
    'DepthwiseSeparableFCNHead': [(BASE, one)],
    'EMAHead': [(dict(BASE, ema_channels=8, num_bases=4, num_stages=1), one)],
    'EncHead': [
        (dict(PYRAMID, num_codes=4, add_lateral=True), pyramid),
        (dict(PYRAMID, num_codes=4, use_se_loss=False), pyramid),
    ],
    'FCNHead': [(BASE, one), (dict(BASE, num_convs=0, concat_input=False), one)],
    'FPNHead': [(dict(PYRAMID, feature_strides=[4, 8, 16, 32]), pyramid)],
    'GCHead': [(BASE, one)],
    'ISAHead': [(dict(BASE, isa_channels=4, down_factor=(2, 2)), one)],
    'IterativeDecodeHead': [
        (
            dict(
                num_stages=2,
                kernel_update_head=[STAGE] * 2,
                kernel_generate_head=dict(BASE, type='FCNHead'),
            ),
            one,
        )
    ],
    'LRASPPHead': [
        (
            dict(BASE, **SELECT, in_channels=[8] * 3, in_index=[0, 1, 2], branch_channels=(4, 4)),
            lambda head: head(maps(8, 8, 8, size=256)),
        )
    ],
    'LightHamHead': [(dict(PYRAMID, ham_channels=8, ham_kwargs=dict(MD_R=4)), pyramid)],
    'Mask2FormerHead': [(mask_former(DEFORMABLE_PIXEL_DECODER, num_classes=3), with_samples)],
    'MaskFormerHead': [(mask_former(PIXEL_DECODER, num_classes=3), with_samples)],
    'NLHead': [(BASE, one)],
    'OCRHead': [
        (dict(BASE, ocr_channels=4), lambda head: head(maps(8), torch.randn(2, 3, 16, 16)))
    ],
    'PIDHead': [(BASE, lambda head: head((*maps(4), *maps(8), *maps(4))))],
    'PSAHead': [(dict(BASE, mask_size=(8, 8)), one)],
    'PSPHead': [(dict(BASE, pool_scales=(1, 2)), one)],
    'PointHead': [
        (
            dict(in_channels=[8], in_index=[0], channels=8, num_classes=3),
            lambda head: head(torch.randn(2, 8, 5), torch.randn(2, 3, 5)),
        )
    ],
    'SETRMLAHead': [(dict(PYRAMID, channels=16, mla_channels=4, up_scale=2), levels)],
    'SETRUPHead': [(dict(BASE, up_scale=2), one)],
    'STDCHead': [(BASE, one)],
    'SegformerHead': [(PYRAMID, pyramid)],
    'SegmenterMaskTransformerHead': [
        (dict(BASE, norm_cfg=dict(type='LN'), num_layers=1, num_heads=2, embed_dims=8), one)
    ],
    'SideAdapterCLIPHead': [(SAN, with_clip)],
    'UPerHead': [(dict(PYRAMID, pool_scales=(1, 2)), pyramid)],
    'VPDDepthHead': [
        (
            dict(
                in_channels=[16] * 4,
                embed_dim=2,
                feature_dim=16,
                num_deconv_layers=1,
                num_deconv_filters=(16,),
            ),
            lambda head: head(maps(16, 16, 16, 16, size=32)),
        )
    ],
}

# Registered beside the heads, without predictions of their own.
OTHERS = {
    'KernelUpdateHead': 'a stage of IterativeDecodeHead, which is traced as a whole',
    'KernelUpdator': 'a layer of KernelUpdateHead',
}

# What they need is not installed.
MISSING: dict[str, str] = {}
