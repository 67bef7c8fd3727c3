"""Compound scaling: the sizes of EfficientDet-D0 to D7."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ['SCALING', 'Scale', 'compound_scaling']


@dataclass(frozen=True)
class Scale:
    """One size of EfficientDet.

    Attributes:
        resolution: Height and width of the input in pixels.
        arch: Name of the EfficientNet in mmdetection.
        features: Channels of its maps at strides 8, 16 and 32.
        channels: Channels of the BiFPN and of the heads.
        cells: Number of cells of the BiFPN.
        convs: Number of convolutions of a head before its predictor.
        fusion: How a BiFPN fuses maps, see :class:`mmwcc.models.detection.BiFPN`.
        anchor_scale: Side of the smallest square anchor in strides of its level.
        drop_path_rate: Highest rate of stochastic depth in the backbone.
    """

    resolution: int
    arch: str
    features: tuple[int, int, int]
    channels: int
    cells: int
    convs: int
    fusion: str = 'fast'
    anchor_scale: float = 4
    drop_path_rate: float = 0.2


SCALING = dict(
    d0=Scale(512, 'b0', (40, 112, 320), 64, 3, 3, drop_path_rate=0.1),
    d1=Scale(640, 'b1', (40, 112, 320), 88, 4, 3),
    d2=Scale(768, 'b2', (48, 120, 352), 112, 5, 3),
    d3=Scale(896, 'b3', (48, 136, 384), 160, 6, 4),
    d4=Scale(1024, 'b4', (56, 160, 448), 224, 7, 4),
    d5=Scale(1280, 'b5', (64, 176, 512), 288, 7, 4),
    d6=Scale(1280, 'b6', (72, 200, 576), 384, 8, 5, fusion='sum'),
    d7=Scale(1536, 'b6', (72, 200, 576), 384, 8, 5, fusion='sum', anchor_scale=5),
)
"""Sizes by name. The two largest fuse maps without weights, to keep training stable."""


def compound_scaling(name: str) -> dict:
    """Return the config keys that differ for a size of EfficientDet.

    They override those of ``configs/efficientdet/_base_/efficientdet.py``.

    Args:
        name: 'd0' to 'd7'.

    Returns:
        Keys of ``backbone``, ``neck`` and ``bbox_head``, to be used in a config that inherits from
        that file: ``model = compound_scaling('d1')``.

    Raises:
        ValueError: If there is no such size.

    Example:
        >>> compound_scaling('d1')['neck']
        {'in_channels': [40, 112, 320], 'out_channels': 88, 'num_cells': 4, 'fusion': 'fast'}

    Reference:
        Tan, Pang and Le, "EfficientDet: Scalable and Efficient Object Detection", CVPR 2020, Table
        1; the choice of fusion, anchors and drop_path_rate is that of
        https://github.com/rwightman/efficientdet-pytorch.
    """
    if name not in SCALING:
        raise ValueError(
            f"compound_scaling: name must be one of {', '.join(SCALING)}, got {name!r}. Use 'd0' "
            'for the '
            'smallest.'
        )
    scale = SCALING[name]
    return dict(
        backbone=dict(arch=scale.arch, drop_path_rate=scale.drop_path_rate),
        neck=dict(
            in_channels=list(scale.features),
            out_channels=scale.channels,
            num_cells=scale.cells,
            fusion=scale.fusion,
        ),
        bbox_head=dict(
            in_channels=scale.channels,
            stacked_convs=scale.convs,
            anchor_generator=dict(octave_base_scale=scale.anchor_scale),
        ),
    )
