"""Estimate the motion of the camera between two images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import MODELS as ROOT_MODELS
from torch import Tensor, nn

from mmwcc.model_tree import replace_layers
from mmwcc.registry import MODELS

__all__ = ['PoseNetwork']


class _PairConv2d(nn.Conv2d):
    """A first convolution for two images that can load the weights of one for a single image."""

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        weight = state_dict.get(f'{prefix}weight')
        if weight is not None and 2 * weight.shape[1] == self.weight.shape[1]:
            state_dict[f'{prefix}weight'] = torch.cat([weight, weight], 1) / 2
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


@MODELS.register_module()
class PoseNetwork(BaseModule):
    """Estimate a rotation and a translation from a pair of images.

    Args:
        backbone: Config of a backbone for single images, of any package. The input channels of its
            first convolution are doubled; pretrained weights for single images are repeated and
            halved there.
        in_channels: Channels of the backbone's last features.
        channels: Channels of the layers that follow. Defaults to 256.
        init_cfg: mmengine's initialization. Defaults to None.

    Shape:
        Two images (B, 3, H, W) to two (B, 3).

    Raises:
        ValueError: If the backbone has no convolution.

    Reference:
        Godard et al., "Digging into Self-Supervised Monocular Depth Estimation", ICCV 2019, Table
        7.
    """

    # Keeps motions small at the start of training.
    scale = 0.01

    def __init__(
        self, backbone: dict, in_channels: int, channels: int = 256, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        self.backbone = ROOT_MODELS.build(backbone)
        _widen_first_conv(self.backbone)
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, 6, 1),
        )

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Return the axis-angle rotation and the translation from the first camera's axes.

        Both lead to the axes of the second camera.
        """
        features = self.backbone(torch.cat([first, second], 1))
        features = features[-1] if isinstance(features, Sequence) else features
        motion = self.scale * F.adaptive_avg_pool2d(self.layers(features), 1).flatten(1)
        return motion[:, :3], motion[:, 3:]


def _widen_first_conv(backbone: nn.Module) -> None:
    for conv in backbone.modules():
        if isinstance(conv, nn.Conv2d):
            geometry: dict[str, Any] = dict(
                kernel_size=conv.kernel_size,
                stride=conv.stride,
                padding=conv.padding,
                dilation=conv.dilation,
                bias=conv.bias is not None,
            )
            pair = _PairConv2d(2 * conv.in_channels, conv.out_channels, **geometry)
            replace_layers(backbone, {conv: pair})
            return
    raise ValueError(
        f'PoseNetwork: backbone must have a convolution, got {type(backbone).__name__} with none. '
        'Use for '
        "example dict(type='mmdet.ResNet', depth=18, out_indices=(3, ))."
    )
