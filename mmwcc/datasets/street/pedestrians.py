"""The pedestrians of the synthetic street."""

from __future__ import annotations

import numpy as np

from .classes import PEDESTRIAN
from .geometry import CLOTH, Frame, SurfaceBuilder
from .palettes import FABRICS, SKINS, pick


def add_pedestrian(
    out: SurfaceBuilder, rng: np.random.Generator, x: float, y: float, heading: float
) -> None:
    """Add a person walking along ``heading`` (radians)."""
    out.begin(PEDESTRIAN, (x, y))
    s = float(rng.uniform(0.92, 1.12))
    frame = Frame(x, y, heading)
    coat, trousers = pick(rng, FABRICS, 0.3), pick(rng, FABRICS, 0.3)
    skin, hair = (
        pick(rng, SKINS),
        pick(rng, ((0.02, 0.02, 0.03), (0.05, 0.10, 0.16), (0.2, 0.25, 0.3))),
    )
    stride = float(rng.uniform(0.0, 0.24))
    for side in (-1, 1):
        for part, drop in ((0.5, 0.66), (1.0, 0.24)):
            out.ellipsoid(
                frame(0.11 * s * side, side * stride * part, drop * s),
                (0.12 * s, 0.12 * s, 0.29 * s),
                CLOTH,
                trousers,
            )
        out.ellipsoid(
            frame(0.30 * s * side, -side * stride * 0.7, 1.12 * s),
            (0.09 * s, 0.09 * s, 0.33 * s),
            CLOTH,
            coat,
        )
        out.ellipsoid(
            frame(0.11 * s * side, side * stride + 0.06, 0.05),
            (0.09, 0.13, 0.06),
            CLOTH,
            (0.03, 0.03, 0.03),
        )
    out.ellipsoid(frame(0.0, 0.0, 1.22 * s), (0.25 * s, 0.21 * s, 0.34 * s), CLOTH, coat)
    out.ellipsoid(frame(0.0, 0.0, 0.92 * s), (0.22 * s, 0.19 * s, 0.24 * s), CLOTH, coat)
    out.ellipsoid(frame(0.0, 0.02, 1.66 * s), (0.125 * s, 0.125 * s, 0.155 * s), CLOTH, skin)
    out.ellipsoid(frame(0.0, -0.03, 1.71 * s), (0.135 * s, 0.135 * s, 0.13 * s), CLOTH, hair)
    out.cast(
        [
            frame(-0.25, 0, 0),
            frame(0.25, 0, 0),
            frame(-0.25, 0, 1.5 * s),
            frame(0.25, 0, 1.5 * s),
            frame(0, 0, 1.75 * s),
        ]
    )
