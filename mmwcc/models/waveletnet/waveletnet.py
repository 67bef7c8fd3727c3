"""WaveletNet for ImageNet, segmentation and detection."""

from __future__ import annotations

from collections.abc import Sequence

from mmcv.cnn import ConvModule

from mmwcc.registry import MODELS

from .base import WaveletNetBase

__all__ = ['WaveletNet']


def _divisible_by_8(channels: float) -> int:
    """Round to a multiple of 8, and round up if rounding down would remove more than a tenth."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


@MODELS.register_module()
class WaveletNet(WaveletNetBase):
    """Build MobileNetV2's layout out of :class:`WaveletUnit`, as a drop-in backbone.

    Args:
        widen_factor: Multiplier of every width, including those of the stem and of the last
            convolution, also below 1; widths are rounded to multiples of 8. Defaults to 1.0.
        kappa: Depths (expanding WConv, transform, projecting WConv), or one triple for each of the
            seven stages. If the channels of a layer do not allow a depth, it gets the deepest
            possible one. Defaults to (0, 3, 3), as published; (0, 0, 0) is MobileNetV2, with the
            parameter names of mmsegmentation's.
        strides: Stride of the first unit of each stage. Defaults to (1, 2, 2, 2, 1, 2, 1).
        dilations: Dilation of the first unit of each stage. Defaults to 1 everywhere.
        out_indices: Outputs: 0 to 6 are the stages, 7 is the 1x1 convolution to 1280 channels,
            which is built only if it is asked for. Defaults to (7,), for classification.
        frozen_stages: Stages that do not train: -1 none, 0 the stem, n the stem and n stages.
            Defaults to -1.
        norm_cfg: Config of the normalization. Defaults to batch normalization.
        act_cfg: Config of the activation. Defaults to ReLU6.
        norm_eval: Whether batch normalization keeps its statistics fixed in training. Defaults to
            False.
        with_cp: Whether units recompute activations in the backward pass instead of storing them.
            Defaults to False.
        pretrained: Checkpoint to start from, short for ``init_cfg=dict(type='Pretrained', ...)``.
            Defaults to None.
        init_cfg: Config of the initialization. Defaults to He's for convolutions and 1 for
            normalization.

    Shape:
        (B, 3, H, W) to a tuple. At the default strides, outputs 0 to 7 have strides 2, 4, 8, 16,
        16, 32, 32, 32 and 16, 24, 32, 64, 96, 160, 320, 1280 channels times ``widen_factor``.

    Raises:
        ValueError: If pretrained and init_cfg are both given; kappa is neither one triple nor
            seven; out_indices, frozen_stages, strides or dilations do not fit seven stages.

    Example:
        >>> [tuple(y.shape) for y in WaveletNet(out_indices=(1, 6))(torch.rand(1, 3, 64, 64))]
        [(1, 24, 16, 16), (1, 320, 2, 2)]

    Reference:
        Jing, Dangovski and Soljacic, WaveletNet: Logarithmic Scale Efficient Convolutional Neural
        Networks for Edge Devices, 2018.
    """

    # Width, units and expansion of each stage.
    stages = ((16, 1, 1), (24, 2, 6), (32, 3, 6), (64, 4, 6), (96, 3, 6), (160, 3, 6), (320, 1, 6))

    def __init__(
        self,
        widen_factor: float = 1.0,
        kappa=(0, 3, 3),
        strides: Sequence[int] = (1, 2, 2, 2, 1, 2, 1),
        dilations: Sequence[int] = (1,) * 7,
        out_indices: Sequence[int] = (7,),
        frozen_stages: int = -1,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        norm_eval: bool = False,
        with_cp: bool = False,
        pretrained: str | None = None,
        init_cfg=None,
    ) -> None:
        count = len(self.stages)
        super().__init__(
            kappa,
            count,
            out_indices,
            count + 1,
            frozen_stages,
            norm_cfg,
            act_cfg,
            norm_eval,
            with_cp,
            pretrained,
            init_cfg,
        )
        for name, values in (('strides', strides), ('dilations', dilations)):
            if len(values) != count:
                raise ValueError(
                    f'WaveletNet: {name} must have one entry for each of the {count} stages, got '
                    f'{values}. Use {(1, 2, 2, 2, 1, 2, 1) if name == "strides" else (1,) * count}.'
                )
        widths = [
            _divisible_by_8(width * widen_factor)
            for width in (32, *(stage[0] for stage in self.stages), 1280)
        ]
        shared = dict(norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        self.conv1 = ConvModule(3, widths[0], 3, stride=2, padding=1, **shared)
        for index, (_, units, expand_ratio) in enumerate(self.stages):
            self._add_stage(
                widths[index],
                widths[index + 1],
                units,
                strides[index],
                expand_ratio,
                dilations[index],
            )
        if count in self.out_indices:
            self.conv2 = ConvModule(widths[-2], widths[-1], 1, **shared)
            self.layers.append('conv2')
