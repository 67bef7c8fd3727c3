"""Table 8 of the paper as data: one inverted residual block, compressed against dense.

It was measured on a GTX 1080 Ti in float32. The block is 1x1 expansion, depthwise 3x3, 1x1
projection
and residual, without activations.
"""

from typing import NamedTuple

__all__ = ['ROWS', 'Row']


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        size: Height and width of the map.
        channels: Input and output channels of the block.
        expansion: Expanded channels over input channels.
        batch: Images in a batch.
        keep_ratio: Fraction of wavelet positions kept.
        paper: Speed-up that the paper measured.
    """

    size: int
    channels: int
    expansion: int
    batch: int
    keep_ratio: float
    paper: float


ROWS = tuple(
    Row(*row)
    for row in (
        (96, 512, 2, 48, 0.25, 1.52),
        (96, 512, 2, 48, 0.5, 1.20),
        (96, 512, 4, 24, 0.25, 1.71),
        (96, 512, 4, 24, 0.5, 1.29),
        (96, 1024, 2, 12, 0.25, 1.94),
        (96, 1024, 2, 12, 0.5, 1.38),
        (96, 1024, 4, 6, 0.25, 2.13),
        (96, 1024, 4, 6, 0.5, 1.47),
        (128, 128, 4, 80, 0.25, 1.20),
        (128, 128, 6, 64, 0.25, 1.28),
        (128, 256, 4, 32, 0.125, 1.81),
        (128, 256, 4, 32, 0.25, 1.53),
        (128, 256, 4, 32, 0.5, 1.27),
        (256, 256, 4, 8, 0.125, 1.85),
        (256, 256, 4, 8, 0.25, 1.57),
        (256, 256, 4, 8, 0.5, 1.29),
        (256, 256, 8, 4, 0.125, 1.99),
        (256, 256, 8, 4, 0.25, 1.68),
        (256, 256, 8, 4, 0.5, 1.39),
        (512, 128, 6, 4, 0.25, 1.41),
        (512, 128, 6, 2, 0.5, 1.12),
        (512, 256, 4, 2, 0.125, 1.77),
        (512, 256, 4, 2, 0.25, 1.52),
        (512, 256, 4, 2, 0.5, 1.20),
    )
)
