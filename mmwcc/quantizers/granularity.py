"""Which values of a tensor share a clip."""

from __future__ import annotations

from typing import NamedTuple

from mmwcc.kernels import WIDTHS

__all__ = ['CHANNEL', 'LAYER', 'WIDTH', 'Granularity']


class Granularity(NamedTuple):
    """Which values of a tensor share a clip, and with it the step of the grid.

    Attributes:
        name: Its name in messages.
        code: The value of the buffer ``granularity`` of a quantizer. It is written to checkpoints,
            so it never changes.
        axes: Axes of the quantized tensor along which the clip differs. It is shared over all
            others.
        clips: Number of clips, or None if it is the size of these axes.
    """

    name: str
    code: int
    axes: tuple[int, ...]
    clips: int | None = None


LAYER = Granularity('layer', 0, (), 1)
"""One clip for the whole tensor."""

CHANNEL = Granularity('channel', 1, (0,))
"""A clip for each output channel of a weight."""

WIDTH = Granularity('width', 2, (), len(WIDTHS))
"""A clip for each number of bits that a row can have, in units of the row's root mean square."""
