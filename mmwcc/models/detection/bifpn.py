"""The bidirectional feature pyramid of EfficientDet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmwcc.registry import MODELS

__all__ = ['BiFPN', 'fuse', 'pyramid_nodes']

FUSIONS = ('fast', 'sum')


def fuse(maps: Sequence[Tensor], weights: Tensor | None = None) -> Tensor:
    """Fuse maps of one shape by their sum, or by fast normalized fusion if weights are given.

    Args:
        maps: Maps (B, C, H, W).
        weights: One number for each map; negative ones count as zero. Defaults to None.

    Returns:
        sum(w * map) / (sum(w) + 1e-4) with w = max(weights, 0), or the sum of the maps.

    Example:
        >>> fuse([torch.tensor([1.0]), torch.tensor([5.0])], torch.tensor([3.0, 1.0]))
        tensor([1.9999])

    Reference:
        Tan, Pang and Le, CVPR 2020, section 3.3.
    """
    if weights is None:
        return sum(maps[1:], start=maps[0])
    weights = weights.relu()
    weights = weights / (weights.sum() + 1e-4)
    return sum(weight.to(x.dtype) * x for weight, x in zip(weights, maps, strict=True))


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize a feature map to the size of a neighbouring pyramid level.

    Pixels are repeated to enlarge it; 3x3 max pooling shrinks it.
    """
    if x.shape[-1] < size[-1] or x.shape[-2] < size[-2]:
        return F.interpolate(x, size)
    if tuple(x.shape[-2:]) != tuple(size):
        return F.max_pool2d(x, 3, stride=2, padding=1)
    return x


def pyramid_nodes(levels: int) -> list[tuple[int, ...]]:
    """Return the inputs of each node of a cell, as indices of input maps and then of nodes.

    The first nodes go down from the second coarsest level to the finest, the others go up to the
    coarsest. Each node works at the size of the first map that it reads. The last ``levels`` nodes
    are the output of the cell.

    Example:
        >>> pyramid_nodes(3)
        [(1, 2), (0, 3), (1, 3, 4), (2, 5)]
    """
    maps = [[level] for level in range(levels)]
    nodes: list[tuple[int, ...]] = []
    for level in (*range(levels - 2, -1, -1), *range(1, levels)):
        going_up = len(nodes) >= levels - 1
        sources = (*maps[level], maps[level - 1][-1]) if going_up else (level, maps[level + 1][-1])
        maps[level].append(levels + len(nodes))
        nodes.append(sources)
    return nodes


class BiFPNNode(nn.Module):
    """Bring maps to one width and to the size of the first map, fuse them, and convolve."""

    def __init__(
        self, in_channels: Sequence[int], channels: int, fusion: str, norm_cfg: dict, act_cfg: dict
    ) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(
            [
                nn.Identity()
                if width == channels
                else ConvModule(width, channels, 1, norm_cfg=norm_cfg, act_cfg=None)
                for width in in_channels
            ]
        )
        self.weights = nn.Parameter(torch.ones(len(in_channels))) if fusion == 'fast' else None
        self.conv = ConvModule(
            channels,
            channels,
            3,
            padding=1,
            conv_cfg=dict(type='mmwcc.SeparableConv2d'),
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
            order=('act', 'conv', 'norm'),
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        size = maps[0].shape[-2:]
        maps = [resized(lateral(x), size) for lateral, x in zip(self.laterals, maps, strict=True)]
        return self.conv(fuse(maps, self.weights))


class BiFPNCell(nn.Module):
    """Go down and up the pyramid once."""

    def __init__(
        self, in_channels: Sequence[int], channels: int, fusion: str, norm_cfg: dict, act_cfg: dict
    ) -> None:
        super().__init__()
        self.sources = pyramid_nodes(len(in_channels))
        widths = [*in_channels, *[channels] * len(self.sources)]
        self.nodes = nn.ModuleList(
            [
                BiFPNNode(
                    [widths[source] for source in sources], channels, fusion, norm_cfg, act_cfg
                )
                for sources in self.sources
            ]
        )

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        maps = list(inputs)
        for node, sources in zip(self.nodes, self.sources, strict=True):
            maps.append(node([maps[source] for source in sources]))
        return maps[-len(inputs) :]


@MODELS.register_module()
class BiFPN(BaseModule):
    """Fuse features of several scales, repeatedly top-down and bottom-up.

    Levels that are coarser than those of the backbone are made from its last map, by a 1x1
    convolution and 3x3 max pooling. In the first cell, every edge that starts at a map of the
    backbone has its own 1x1 convolution.

    Args:
        in_channels: Channels of the maps of the backbone, each half the size (rounded up) of the
            one before.
        out_channels: Channels of all inner maps and of the output.
        num_cells: How often to go down and up. Defaults to 3.
        num_outs: Number of levels, at least as many as the backbone has. Defaults to 5.
        fusion: 'fast' for fast normalized fusion, 'sum' for sums. Defaults to 'fast'.
        norm_cfg: Config of the normalization. Defaults to EfficientDet's batch normalization.
        act_cfg: Config of the activation. Defaults to ``dict(type='SiLU')``.
        init_cfg: mmengine's initialization. Defaults to Xavier's, uniform.

    Shape:
        Maps (B, in_channels[i], H_i, W_i), to num_outs maps (B, out_channels, H_i, W_i).

    Raises:
        ValueError: If num_cells is below 1, num_outs is below 2 or below the number of maps, or
            fusion is unknown.
        ValueError: In use, if the number of maps is not that of in_channels.

    Example:
        >>> maps = [torch.rand(1, 8, 16, 12), torch.rand(1, 16, 8, 6)]
        >>> [tuple(x.shape) for x in BiFPN([8, 16], 4, num_outs=3)(maps)]
        [(1, 4, 16, 12), (1, 4, 8, 6), (1, 4, 4, 3)]

    Reference:
        Tan, Pang and Le, "EfficientDet: Scalable and Efficient Object Detection", CVPR 2020,
        section 3.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        num_cells: int = 3,
        num_outs: int = 5,
        fusion: str = 'fast',
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if num_cells < 1:
            raise ValueError(
                f'BiFPN: num_cells must be at least 1, got {num_cells}. Use 3 as EfficientDet-D0 '
                'does.'
            )
        if num_outs < max(2, len(in_channels)):
            raise ValueError(
                f'BiFPN: num_outs must be at least 2 and the number of maps, {len(in_channels)}, '
                f'got {num_outs}. Use fewer out_indices in the backbone, or more levels.'
            )
        if fusion not in FUSIONS:
            raise ValueError(
                f"BiFPN: fusion must be one of {', '.join(FUSIONS)}, got {fusion!r}. Use 'fast' "
                'for '
                'learned weights.'
            )
        super().__init__(init_cfg or dict(type='Xavier', layer='Conv2d', distribution='uniform'))
        norm_cfg = norm_cfg or dict(type='BN', eps=1e-3, momentum=0.01)
        act_cfg = act_cfg or dict(type='SiLU')
        self.in_channels, self.num_outs = tuple(in_channels), num_outs
        self.extra: Any = None
        if num_outs > len(in_channels):
            self.extra = ConvModule(
                in_channels[-1], out_channels, 1, norm_cfg=norm_cfg, act_cfg=None
            )
        first = [*in_channels, *[out_channels] * (num_outs - len(in_channels))]
        self.cells = nn.Sequential(
            *[
                BiFPNCell(
                    [out_channels] * num_outs if number else first,
                    out_channels,
                    fusion,
                    norm_cfg,
                    act_cfg,
                )
                for number in range(num_cells)
            ]
        )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the levels from fine to coarse."""
        if len(inputs) != len(self.in_channels):
            raise ValueError(
                f'BiFPN: there must be {len(self.in_channels)} maps, one for each of in_channels, '
                f'got {len(inputs)}. Choose them by out_indices of the backbone.'
            )
        maps = list(inputs)
        for level in range(len(maps), self.num_outs):
            top = maps[-1] if level > len(inputs) else self.extra(maps[-1])
            maps.append(F.max_pool2d(top, 3, stride=2, padding=1))
        return tuple(self.cells(maps))
