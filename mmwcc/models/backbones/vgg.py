"""VGG of any width.

The VGGs of mmcv and mmdetection have fixed widths, and a wavelet-like auto-encoder needs a quarter
of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmwcc.registry import MODELS

__all__ = ['VGG']


@MODELS.register_module()
class VGG(BaseModule):
    """Build the convolutions of a VGG network.

    Args:
        depth: 11, 13, 16 or 19.
        in_channels: Channels of the input. Defaults to 3.
        base_channels: Width of the first stage; the others are 2, 4, 8 and 8 times as wide.
            Defaults to 64.
        num_stages: How many of the five stages are built. Defaults to 5.
        out_indices: Stages whose output, after pooling, is returned. Defaults to None, the last one
            built.
        ceil_mode: Whether pooling rounds odd sizes up. Defaults to False.
        norm_cfg: Config of normalization layers after the convolutions. Defaults to None: no
            normalization, and convolutions with biases.
        init_cfg: mmengine's initialization. Defaults to Xavier for convolutions.

    Shape:
        (B, in_channels, H, W) to a tuple of (B, C_i, H / 2**(i + 1), W / 2**(i + 1)), rounded
        according to ceil_mode.

    Raises:
        ValueError: If depth or num_stages is unknown, or out_indices names a stage that is not
            built.

    Example:
        >>> VGG(16, ceil_mode=True)(torch.rand(1, 3, 112, 112))[0].shape
        torch.Size([1, 512, 4, 4])

    Reference:
        Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
        Recognition", ICLR 2015.
    """

    BLOCKS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
    WIDTHS = (1, 2, 4, 8, 8)

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        base_channels: int = 64,
        num_stages: int = 5,
        out_indices: Sequence[int] | None = None,
        ceil_mode: bool = False,
        norm_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if depth not in self.BLOCKS:
            raise ValueError(
                f'VGG: depth must be one of {sorted(self.BLOCKS)}, got {depth}. Use 16 for the '
                'usual one.'
            )
        if not 1 <= num_stages <= 5:
            raise ValueError(
                f'VGG: num_stages must be 1 to 5, got {num_stages}. Use 5 for the whole network.'
            )
        out_indices = (num_stages - 1,) if out_indices is None else tuple(out_indices)
        if not out_indices or not all(0 <= index < num_stages for index in out_indices):
            raise ValueError(
                f'VGG: out_indices must name stages from 0 to {num_stages - 1}, got {out_indices}. '
                f'Use ({num_stages - 1}, ) for the last one.'
            )
        super().__init__(init_cfg or dict(type='Xavier', layer='Conv2d', distribution='uniform'))
        self.out_indices = out_indices
        stages, width = [], in_channels
        for blocks, factor in zip(self.BLOCKS[depth][:num_stages], self.WIDTHS, strict=False):
            layers = []
            for _ in range(blocks):
                layers.append(
                    ConvModule(width, factor * base_channels, 3, padding=1, norm_cfg=norm_cfg)
                )
                width = factor * base_channels
            stages.append(nn.Sequential(*layers, nn.MaxPool2d(2, 2, ceil_mode=ceil_mode)))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the features of the stages in ``out_indices``, the finest first."""
        features = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.out_indices:
                features.append(x)
        return tuple(features)
