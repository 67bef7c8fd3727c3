"""A small backbone and cameras for the depth network and its parts."""

import torch
from mmengine.model import BaseModule
from torch import nn

from mmwcc.models.depth.geometry import pose_matrix

HEIGHT, WIDTH = 64, 96
CHANNELS = [4, 6, 8, 8, 8]


class Pyramid(BaseModule):
    """Five strided convolutions."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, 3, 2, 1) for i, o in zip([3, *CHANNELS], CHANNELS, strict=False)
        )

    def forward(self, x):
        features = []
        for conv in self.convs:
            x = conv(x).relu()
            features.append(x)
        return tuple(features)


def intrinsics(focal: float = 50.0, height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    return torch.tensor([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


def translation(x=0.0, y=0.0, z=0.0) -> torch.Tensor:
    return pose_matrix(torch.zeros(1, 3), torch.tensor([[x, y, z]]))
