"""Monodepth2's decoder, with separable convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmwcc.layers import SeparableConv2d
from mmwcc.registry import MODELS

__all__ = ['DepthDecoder']


@MODELS.register_module()
class DepthDecoder(BaseModule):
    """Turn features at five scales into disparities at four.

    From the coarsest scale to the finest, the decoder convolves, enlarges by two, appends the
    encoder's features of that size, and convolves again. A sigmoid gives a disparity at each of the
    four finest scales.

    Args:
        in_channels: Channels of the features at strides 2, 4, 8, 16 and 32.
        channels: Channels of the decoder at strides 1, 2, 4, 8 and 16. Defaults to (16, 32, 64,
            128, 256).
        separable: Whether to split every 3x3 convolution into a depthwise 3x3 and a 1x1, as wavelet
            compression needs. False gives the decoder of Monodepth2, whose weights the separable
            one can load too. Defaults to True.
        init_cfg: mmengine's initialization. Defaults to None, torch's.

    Shape:
        Five feature maps (B, C, H / stride, W / stride), rounded up, to four (B, 1, H / s, W / s)
        in [0, 1], s = 1, 2, 4, 8.

    Raises:
        ValueError: If in_channels or channels do not hold five numbers.
        ValueError: In use, if there are not five features, or the coarsest ones are smaller than
            2x2.

    Example:
        >>> decoder = DepthDecoder([4, 4, 4, 4, 4], channels=[4, 4, 4, 4, 4])
        >>> features = [torch.rand(1, 4, 64 // s, 96 // s) for s in (2, 4, 8, 16, 32)]
        >>> [tuple(disp.shape[2:]) for disp in decoder(features, (64, 96))]
        [(64, 96), (32, 48), (16, 24), (8, 12)]

    Reference:
        Godard et al., "Digging into Self-Supervised Monocular Depth Estimation", ICCV 2019, Table
        7; Finder et al., "Wavelet Feature Maps Compression for Image-to-Image CNNs", NeurIPS 2022,
        Appendix A.
    """

    num_disps = 4

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: Sequence[int] = (16, 32, 64, 128, 256),
        separable: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        for name, value in (('in_channels', in_channels), ('channels', channels)):
            if len(value) != 5:
                raise ValueError(
                    f'DepthDecoder: {name} must hold five numbers, got {list(value)}. Give one for '
                    'each scale, the finest first.'
                )
        conv = partial(
            SeparableConv2d if separable else nn.Conv2d,
            kernel_size=3,
            padding=1,
            padding_mode='reflect',
        )
        inputs, skips = [*channels[1:], in_channels[-1]], [0, *in_channels[:-1]]
        self.up_convs = nn.ModuleList(map(conv, inputs, channels))
        self.merge_convs = nn.ModuleList(
            conv(c + skip, c) for c, skip in zip(channels, skips, strict=True)
        )
        self.dispconvs = nn.ModuleList(conv(c, 1) for c in channels[: self.num_disps])

    def forward(self, features: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Return the disparities, the finest first.

        Args:
            features: Features at strides 2 to 32.
            size: Height and width of the image.
        """
        if len(features) != 5 or min(features[-1].shape[-2:]) < 2:
            raise ValueError(
                'DepthDecoder: features must be five maps of at least 2x2, got '
                f'{[tuple(f.shape) for f in features]}. Set out_indices of the backbone to the '
                'strides 2, 4, 8, 16 and 32, and use images of more than 32 pixels.'
            )
        x, disps = features[-1], []
        for level in reversed(range(5)):
            x = F.elu(self.up_convs[level](x))
            # Enlarge by two, or to one pixel less if the encoder has rounded the size up.
            x = F.interpolate(
                x, size=features[level - 1].shape[-2:] if level else size, mode='nearest'
            )
            if level:
                x = torch.cat([x, features[level - 1]], 1)
            x = F.elu(self.merge_convs[level](x))
            if level < self.num_disps:
                disps.append(torch.sigmoid(self.dispconvs[level](x)))
        return tuple(reversed(disps))
