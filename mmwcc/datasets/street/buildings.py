"""The buildings of the synthetic street."""

from __future__ import annotations

import numpy as np

from .classes import BUILDING
from .geometry import FACADE, PAINT, ROOF, Frame, SurfaceBuilder
from .palettes import ROOFS, WALLS, pick


def add_building(
    out: SurfaceBuilder, rng: np.random.Generator, frame: Frame, width: float, depth: float
) -> None:
    """Add a house, block or office whose front face is centred on ``frame``.

    The front faces along the frame's -forward axis.
    """
    place = frame(0.0, depth / 2, 0.0)[:2]
    out.begin(BUILDING, place)
    kind = rng.choice(3, p=(0.4, 0.4, 0.2))
    floor = float(rng.uniform(2.8, 3.6))
    storeys = int(rng.integers(2, 4)) if kind == 0 else int(rng.integers(3, 9))
    height = storeys * floor + 0.6
    wall = pick(rng, WALLS)
    brick = float(wall[2] > 1.6 * wall[0])
    bay = width / max(2, round(width / float(rng.uniform(2.2, 3.6))))
    opening = (
        (0.86, 0.72)
        if kind == 2
        else (float(rng.uniform(0.36, 0.62)), float(rng.uniform(0.42, 0.66)))
    )
    shop = float(rng.random() < (0.25 if kind == 0 else 0.6))
    params = (bay, floor, *opening, shop + 2 * brick, float(rng.integers(256)))
    half = width / 2
    base = (-half, half, 0.0, depth, 0.0)
    out.prism(
        frame, base, (-half, half, 0.0, depth, height), FACADE, wall, params=params, lid=False
    )
    top = height
    roof = pick(rng, ROOFS)
    if kind == 0:
        top = height + float(rng.uniform(2.0, 3.8))
        _add_gable(out, frame, half, depth, height, top, roof, wall)
        if rng.random() < 0.7:
            x = half - 0.9
            chimney = (x - 0.5, x + 0.5, depth / 2 - 0.4, depth / 2 + 0.4)
            out.prism(frame, (*chimney, height), (*chimney, top + 1.1), PAINT, wall)
    else:
        rim = (-half - 0.15, half + 0.15, -0.2, depth + 0.2)
        trim = tuple(min(0.75, 1.3 * c) for c in wall)
        out.prism(frame, (*rim, height - 0.1), (*rim, height + 0.5), PAINT, trim)
        if rng.random() < 0.5:
            hut = (-half * 0.4, half * 0.3, depth * 0.3, depth * 0.7)
            out.prism(frame, (*hut, height), (*hut, height + 2.8), PAINT, pick(rng, WALLS))
    out.cast(
        [frame(x, y, z) for x in (-half, half) for y in (0.0, depth) for z in (0.0, height)]
        + [frame(x, depth / 2, top) for x in (-half, half)]
    )


def _add_gable(
    out: SurfaceBuilder,
    frame: Frame,
    half: float,
    depth: float,
    low: float,
    high: float,
    roof,
    wall,
):
    eave, middle = 0.35, depth / 2
    drop = eave * (high - low) / middle
    left, right = -half, half
    out.polygon(
        [
            frame(left, -eave, low - drop),
            frame(right, -eave, low - drop),
            frame(right, middle, high),
            frame(left, middle, high),
        ],
        ROOF,
        roof,
    )
    out.polygon(
        [
            frame(right, depth + eave, low - drop),
            frame(left, depth + eave, low - drop),
            frame(left, middle, high),
            frame(right, middle, high),
        ],
        ROOF,
        roof,
    )
    out.polygon(
        [frame(right, 0.0, low), frame(right, depth, low), frame(right, middle, high)], PAINT, wall
    )
    out.polygon(
        [frame(left, depth, low), frame(left, 0.0, low), frame(left, middle, high)], PAINT, wall
    )
