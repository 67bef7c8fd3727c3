"""The layout of the synthetic street: where road, pavements, crossings and lines are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .geometry import Frame


@dataclass(frozen=True)
class Layout:
    """The layout of the ground z = 0, in metres.

    Args:
        half_width: From the centre line to the kerb.
        pavement: Width of each pavement.
        curvature: The centre line is x = curvature * y^2 / 2 for y > 0.
        crossing: Extent along y of a crossing road; (inf, inf) if there is none.
        zebra: Where along y a zebra crossing starts; inf if there is none.
        drive_side: Side of the road that is driven on: 1 right, -1 left.
        dashes: Length of the dashes of the centre line.
        edge_lines: Number of lines along each kerb, 0 to 2.
        edge_yellow: Whether those lines are yellow.
    """

    half_width: float
    pavement: float
    curvature: float
    crossing: tuple[float, float]
    zebra: float
    drive_side: int
    dashes: float
    edge_lines: int
    edge_yellow: bool

    def centre(self, y):
        """Return the x of the centre line at ``y`` (a number or an array)."""
        return 0.5 * self.curvature * np.maximum(y, 0.0) ** 2

    def frame(self, lateral: float, y: float, turn: float = 0.0) -> Frame:
        """Return a frame on the street, heading along it plus ``turn``.

        It lies ``lateral`` metres to the right of the centre line.
        """
        slope = math.atan(self.curvature * max(y, 0.0))
        return Frame(lateral + 0.5 * self.curvature * max(y, 0.0) ** 2, y, slope + turn)

    def is_crossing(self, y: float, margin: float = 0.0) -> bool:
        """Return whether ``y`` lies on the crossing road, or within ``margin`` metres of it."""
        return self.crossing[0] - margin < y < self.crossing[1] + margin

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Layout:
        """Return a random layout."""
        crossing = (math.inf, math.inf)
        if rng.random() < 0.4:
            start = float(rng.uniform(18, 50))
            crossing = (start, start + float(rng.uniform(8, 12)))
        zebra = float(rng.uniform(9, 30)) if rng.random() < 0.35 else math.inf
        if crossing[0] - 1 < zebra + 3 and zebra < crossing[1] + 1:
            zebra = crossing[0] - 4.5
        return cls(
            half_width=float(rng.uniform(3.9, 5.9)),
            pavement=float(rng.uniform(2.8, 5.0)),
            curvature=float(np.clip(rng.normal(0, 0.0025), -0.006, 0.006)),
            crossing=crossing,
            zebra=zebra,
            drive_side=1 if rng.random() < 0.5 else -1,
            dashes=float(rng.uniform(1.5, 4.0)),
            edge_lines=int(rng.integers(3)),
            edge_yellow=bool(rng.random() < 0.5),
        )
