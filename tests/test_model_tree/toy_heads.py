"""Parts that the small heads of ``toy_heads_mmseg`` and ``toy_heads_mmdet`` have in common."""

from __future__ import annotations

import torch
from torch import Tensor


def maps(*channels: int, size: int = 16, halved: bool = True) -> list[Tensor]:
    """Return maps of two images, each half as large as the one before or all of one size."""
    sizes = [size >> level if halved else size for level in range(len(channels))]
    return [torch.randn(2, *shape) for shape in zip(channels, sizes, sizes, strict=True)]


def attention(**changes) -> dict:
    return dict(embed_dims=8, num_heads=2, batch_first=True, **changes)


FFN = dict(embed_dims=8, feedforward_channels=8, num_fcs=2)
POSITIONS = dict(num_feats=4, normalize=True)
PIXEL_DECODER = dict(type='mmdet.PixelDecoder', norm_cfg=dict(type='GN', num_groups=2))
DEFORMABLE_PIXEL_DECODER = dict(
    type='mmdet.MSDeformAttnPixelDecoder',
    num_outs=3,
    norm_cfg=dict(type='GN', num_groups=2),
    encoder=dict(
        num_layers=1,
        layer_cfg=dict(self_attn_cfg=attention(num_levels=3, num_points=1), ffn_cfg=FFN),
    ),
    positional_encoding=POSITIONS,
)


def mask_former(pixel_decoder: dict, **changes) -> dict:
    """Return the config of a MaskFormer or Mask2Former head for three classes."""
    return dict(
        in_channels=[8] * 4,
        strides=[4, 8, 16, 32],
        feat_channels=8,
        out_channels=8,
        num_queries=2,
        pixel_decoder=pixel_decoder,
        positional_encoding=POSITIONS,
        transformer_decoder=dict(
            return_intermediate=True,
            num_layers=1,
            layer_cfg=dict(self_attn_cfg=attention(), cross_attn_cfg=attention(), ffn_cfg=FFN),
        ),
        loss_cls=dict(type='mmdet.CrossEntropyLoss', class_weight=[1.0] * 4),
        loss_mask=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True),
        loss_dice=dict(type='mmdet.DiceLoss'),
        **changes,
    )
