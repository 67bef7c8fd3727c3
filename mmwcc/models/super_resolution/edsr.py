"""The super-resolution network EDSR."""

from __future__ import annotations

from mmcv.cnn import build_conv_layer, build_upsample_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmwcc.registry import MODELS

__all__ = ['EDSR']


class ResidualBlock(nn.Module):
    """Compute x + res_scale * conv(relu(conv(x))), without normalization."""

    def __init__(self, channels: int, res_scale: float, conv_cfg: dict | None) -> None:
        super().__init__()
        self.res_scale = res_scale
        self.conv1 = build_conv_layer(conv_cfg, channels, channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = build_conv_layer(conv_cfg, channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.res_scale * self.conv2(self.relu(self.conv1(x)))


@MODELS.register_module()
class EDSR(BaseModule):
    """Enlarge images by residual blocks at low resolution, followed by a pixel shuffle.

    A convolution stands in front of the blocks. The defaults are those of EDSR-baseline. Layers
    have the names of mmagic's EDSRNet, so that its checkpoints load, even if the body is separable.

    Args:
        scale: Enlargement: 2, 3 or 4. Defaults to 2.
        in_channels: Channels of the input and of the output. Defaults to 3.
        mid_channels: Width of the body. Defaults to 64.
        num_blocks: Number of residual blocks. Defaults to 16.
        res_scale: Factor of the residual branches. Defaults to 1.
        conv_cfg: Config of the convolutions of the body, for example
            ``dict(type='mmwcc.SeparableConv2d')``; the convolutions before and after the body are
            dense. Defaults to None, dense.
        init_cfg: mmengine's initialization. Defaults to None, torch's.

    Shape:
        (B, in_channels, H, W) to (B, in_channels, scale * H, scale * W).

    Raises:
        ValueError: If scale is not 2, 3 or 4.

    Example:
        >>> EDSR(scale=3, mid_channels=8, num_blocks=1)(torch.rand(1, 3, 5, 7)).shape
        torch.Size([1, 3, 15, 21])

    Reference:
        Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPR
        Workshops 2017.
    """

    STEPS = {2: (2,), 3: (3,), 4: (2, 2)}

    def __init__(
        self,
        scale: int = 2,
        in_channels: int = 3,
        mid_channels: int = 64,
        num_blocks: int = 16,
        res_scale: float = 1.0,
        conv_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if scale not in self.STEPS:
            raise ValueError(
                f'EDSR: scale must be 2, 3 or 4, got {scale}. Apply a network twice for more.'
            )
        super().__init__(init_cfg)
        self.scale = scale
        self.conv_first = nn.Conv2d(in_channels, mid_channels, 3, padding=1)
        self.body = nn.Sequential(
            *[ResidualBlock(mid_channels, res_scale, conv_cfg) for _ in range(num_blocks)]
        )
        self.conv_after_body = build_conv_layer(conv_cfg, mid_channels, mid_channels, 3, padding=1)
        self.upsample = nn.Sequential(
            *[
                build_upsample_layer(
                    dict(type='pixel_shuffle'),
                    in_channels=mid_channels,
                    out_channels=mid_channels,
                    scale_factor=step,
                    upsample_kernel=3,
                )
                for step in self.STEPS[scale]
            ]
        )
        self.conv_last = nn.Conv2d(mid_channels, in_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge a batch."""
        features = self.conv_first(x)
        features = features + self.conv_after_body(self.body(features))
        return self.conv_last(self.upsample(features))
