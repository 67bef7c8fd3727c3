"""The WaveletNet unit: an inverted residual that projects by a transform and a WConv."""

from __future__ import annotations

import torch.utils.checkpoint
from mmcv.cnn import ConvModule
from torch import Tensor, nn

__all__ = ['WaveletUnit']


class WaveletUnit(nn.Module):
    """Expand by a 1x1 WConv, filter by a depthwise 3x3, transform channels, project by a 1x1 WConv.

    The input is added to the result if stride is 1 and the channel counts are equal. A convolution
    may not allow its depth of ``kappa``. The depth is then lowered to the deepest one that divides
    both of its channel counts. The transform is then lowered with the convolution after it, so that
    their pieces coincide.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the 3x3 convolution.
        expand_ratio: Number of inner channels per input channel; with 1 there is no expanding
            convolution.
        kappa: Depths of the expanding WConv, the transform and the projecting WConv. (0, 0, 0) is
            MobileNetV2's block.
        dilation: Dilation of the 3x3 convolution. Defaults to 1.
        norm_cfg: Config of the normalization. Defaults to batch normalization.
        act_cfg: Config of the activation after the first two convolutions. Defaults to ReLU6.
        with_cp: Whether to recompute activations in the backward pass instead of storing them.
            Defaults to False.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        expand_ratio: int,
        kappa: tuple[int, int, int],
        dilation: int = 1,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        norm_cfg, act_cfg = norm_cfg or dict(type='BN'), act_cfg or dict(type='ReLU6')
        expanded = in_channels * expand_ratio
        expand, transform, project = kappa
        # The modules are named as in mmseg's MobileNetV2, so that checkpoints of kappa = (0, 0, 0)
        # fit both.
        self.conv = nn.Sequential()
        if expand_ratio != 1:
            self.conv.append(
                ConvModule(
                    in_channels,
                    expanded,
                    1,
                    conv_cfg=_wconv(expand),
                    norm_cfg=norm_cfg,
                    act_cfg=act_cfg,
                )
            )
        self.conv.append(
            ConvModule(
                expanded,
                expanded,
                3,
                stride=stride,
                padding=dilation,
                dilation=dilation,
                groups=expanded,
                norm_cfg=norm_cfg,
                act_cfg=act_cfg,
            )
        )
        self.conv.append(
            ConvModule(
                expanded,
                out_channels,
                1,
                conv_cfg=_wconv(project, transform),
                norm_cfg=norm_cfg,
                act_cfg=None,
            )
        )
        self.is_residual = stride == 1 and in_channels == out_channels
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        """Return the unit's output for ``x``, shape (B, in_channels, H, W)."""
        if self.with_cp and x.requires_grad:
            return torch.utils.checkpoint.checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.is_residual else self.conv(x)


def _wconv(kappa: int, dfwt: int = 0) -> dict:
    return dict(type='mmwcc.WConv', kappa=kappa, dfwt=dfwt, lower=True)
