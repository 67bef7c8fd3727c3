"""The head of EfficientDet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import build_activation_layer, build_norm_layer
from mmdet.models.dense_heads import AnchorHead
from torch import Tensor, nn

from mmwcc.layers import SeparableConv2d

__all__ = ['EfficientDetHead']

# Fan-in scaling; the classifier starts by finding an object in one anchor of a hundred.
_FAN_IN = dict(type='Kaiming', mode='fan_in', nonlinearity='linear')
_INIT = dict(_FAN_IN, layer='Conv2d', override=dict(_FAN_IN, name='cls_predictor', bias_prob=0.01))


class EfficientDetHead(AnchorHead):
    """Classify anchors and refine their boxes by separable convolutions.

    All pyramid levels share the convolutions, but each level has its own normalization. Anchors,
    targets, losses and predictions are those of mmdetection's :class:`AnchorHead`, with the
    settings of EfficientDet as defaults. At each position there are anchors of three octaves in
    three shapes. The classification loss is the focal loss. The box loss is Huber's loss with delta
    0.1 and weight 50, averaged over the four numbers of a box; this equals the smooth L1 loss with
    beta 0.1 and weight 1.25.

    Args:
        num_classes: Number of classes.
        in_channels: Channels of all maps, including those inside the head.
        num_ins: Number of levels. Defaults to 5.
        stacked_convs: Number of convolutions before the predictors. Defaults to 3.
        anchor_generator: Changes to the config of the anchors. Defaults to None.
        loss_cls: Config of the classification loss. Defaults to None, the focal loss with alpha
            0.25 and gamma 1.5.
        loss_bbox: Config of the box loss. Defaults to None, see above.
        norm_cfg: Config of the normalization. Defaults to EfficientDet's batch normalization.
        act_cfg: Config of the activation. Defaults to ``dict(type='SiLU')``.
        init_cfg: mmengine's initialization. Defaults to EfficientDet's.
        **kwargs: As for :class:`AnchorHead`.

    Shape:
        Maps (B, in_channels, H_i, W_i), to scores (B, 9 * num_classes, H_i, W_i) and boxes (B, 9 *
        4, H_i, W_i).

    Raises:
        ValueError: If the number of strides of the anchors is not the number of levels.
        ValueError: In use, if there are not num_ins maps.

    Note:
        Losses are divided by the number of anchors with an object, or by the number of images if
        there are none. The authors divide by the number of such anchors plus 1.

    Reference:
        Tan, Pang and Le, "EfficientDet: Scalable and Efficient Object Detection", CVPR 2020;
        https://github.com/rwightman/efficientdet-pytorch for the numbers that it leaves open.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        num_ins: int = 5,
        stacked_convs: int = 3,
        anchor_generator: dict | None = None,
        loss_cls: dict | None = None,
        loss_bbox: dict | None = None,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        init_cfg: dict | None = None,
        **kwargs,
    ) -> None:
        self.num_ins, self.stacked_convs = num_ins, stacked_convs
        self.norm_cfg = norm_cfg or dict(type='BN', eps=1e-3, momentum=0.01)
        self.act_cfg = act_cfg or dict(type='SiLU', inplace=True)
        anchors: dict[str, Any] = dict(
            type='AnchorGenerator',
            strides=[8 << level for level in range(num_ins)],
            octave_base_scale=4,
            scales_per_octave=3,
            ratios=[1.0, 0.5, 2.0],
            scale_major=False,
            center_offset=0.5,
        )
        anchors.update(anchor_generator or {})
        if len(anchors['strides']) != num_ins:
            raise ValueError(
                f'EfficientDetHead: anchor_generator must have {num_ins} strides, one for each '
                f'level, got {len(anchors["strides"])}. Set num_ins, and num_outs of the neck.'
            )
        super().__init__(
            num_classes,
            in_channels,
            feat_channels=in_channels,
            anchor_generator=anchors,
            loss_cls=loss_cls or dict(type='FocalLoss', use_sigmoid=True, gamma=1.5, alpha=0.25),
            loss_bbox=loss_bbox or dict(type='SmoothL1Loss', beta=0.1, loss_weight=1.25),
            init_cfg=init_cfg or _INIT,
            **kwargs,
        )

    def _init_layers(self) -> None:
        """Build the layers; the base class calls this method."""
        self.activate = build_activation_layer(self.act_cfg)
        outputs = dict(cls=self.cls_out_channels, reg=self.bbox_coder.encode_size)
        for name, channels in outputs.items():
            setattr(
                self,
                f'{name}_convs',
                nn.ModuleList(
                    [
                        SeparableConv2d(
                            self.in_channels, self.in_channels, 3, padding=1, bias=False
                        )
                        for _ in range(self.stacked_convs)
                    ]
                ),
            )
            setattr(
                self,
                f'{name}_norms',
                nn.ModuleList(
                    [
                        nn.ModuleList(
                            [
                                build_norm_layer(self.norm_cfg, self.in_channels)[1]
                                for _ in range(self.num_ins)
                            ]
                        )
                        for _ in range(self.stacked_convs)
                    ]
                ),
            )
            setattr(
                self,
                f'{name}_predictor',
                SeparableConv2d(self.in_channels, self.num_base_priors * channels, 3, padding=1),
            )

    def forward(self, feats: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return scores and boxes of every level."""
        if len(feats) != self.num_ins:
            raise ValueError(
                f'EfficientDetHead: there must be {self.num_ins} maps, got {len(feats)}. Set '
                'num_ins, or num_outs of the neck.'
            )
        return (
            [
                self._predict(x, level, self.cls_convs, self.cls_norms, self.cls_predictor)
                for level, x in enumerate(feats)
            ],
            [
                self._predict(x, level, self.reg_convs, self.reg_norms, self.reg_predictor)
                for level, x in enumerate(feats)
            ],
        )

    def _predict(
        self, x: Tensor, level: int, convs: nn.ModuleList, norms: Any, predictor: nn.Module
    ) -> Tensor:
        for conv, levels in zip(convs, norms, strict=True):
            x = self.activate(levels[level](conv(x)))
        return predictor(x)
