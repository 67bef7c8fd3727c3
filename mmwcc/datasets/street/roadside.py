"""What stands along the kerbs of the synthetic street: trees, lamp posts, signs and lights."""

from __future__ import annotations

import math

import numpy as np

from .classes import POLE, SIGN_CLASS, TREE
from .geometry import FOLIAGE, PAINT, SIGN, Frame, SurfaceBuilder
from .palettes import METALS, pick


def add_tree(
    out: SurfaceBuilder, rng: np.random.Generator, x: float, y: float, scale: float = 1.0
) -> None:
    """Add a tree: a square trunk and a crown of overlapping blobs with ragged edges."""
    out.begin(TREE, (x, y))
    height = float(rng.uniform(5.0, 9.0)) * scale
    radius = height * float(rng.uniform(0.24, 0.34))
    trunk = 0.10 + 0.022 * height
    crown = height - radius * 0.95
    frame = Frame(x, y, float(rng.uniform(0, 1.5)))
    bark = pick(rng, ((0.07, 0.10, 0.14), (0.12, 0.14, 0.16)))
    out.prism(
        frame,
        (-trunk, trunk, -trunk, trunk, 0.0),
        (-trunk * 0.6, trunk * 0.6, -trunk * 0.6, trunk * 0.6, crown),
        PAINT,
        bark,
        lid=False,
    )
    leaf = pick(
        rng,
        (
            (0.03, 0.13, 0.07),
            (0.04, 0.20, 0.13),
            (0.03, 0.10, 0.04),
            (0.03, 0.17, 0.20),
            (0.03, 0.13, 0.10),
        ),
        0.3,
    )
    places = rng.uniform(-1, 1, (10, 3)) * (0.72, 0.72, 0.66) * radius + (x, y, crown)
    sizes = (rng.uniform(0.36, 0.6, 10) * radius).tolist()
    for centre, size in zip(places.tolist(), sizes, strict=True):
        out.ellipsoid(tuple(centre), (size, size, size * 0.85), FOLIAGE, leaf)
    out.ellipsoid((x, y, crown), (radius * 0.66, radius * 0.66, radius * 0.74), FOLIAGE, leaf)
    ring = [
        (x + radius * math.cos(t), y + radius * math.sin(t), crown) for t in np.arange(0, 6.2, 0.9)
    ]
    out.cast([*ring, (x, y, crown + radius), (x, y, crown - 0.7 * radius)])
    out.cast(
        [(x - trunk, y, 0.0), (x + trunk, y, 0.0), (x - trunk, y, crown), (x + trunk, y, crown)]
    )


def add_lamp(
    out: SurfaceBuilder, rng: np.random.Generator, x: float, y: float, towards: float
) -> None:
    """Add a lamp post with an arm over the road.

    ``towards`` is the heading of the arm in radians.
    """
    out.begin(POLE, (x, y))
    half, height = float(rng.uniform(0.11, 0.17)), float(rng.uniform(5.0, 8.0))
    color = pick(rng, METALS)
    frame = Frame(x, y, towards)
    out.prism(
        frame,
        (-half * 1.5, half * 1.5, -half * 1.5, half * 1.5, 0.0),
        (-half * 1.4, half * 1.4, -half * 1.4, half * 1.4, 0.9),
        PAINT,
        color,
    )
    out.prism(
        frame,
        (-half, half, -half, half, 0.8),
        (-half * 0.8, half * 0.8, -half * 0.8, half * 0.8, height),
        PAINT,
        color,
    )
    reach = float(rng.uniform(1.2, 2.2))
    arm = (-0.08, 0.08, 0.0, reach)
    out.prism(frame, (*arm, height - 0.16), (*arm, height), PAINT, color)
    head = (-0.2, 0.2, reach - 0.2, reach + 0.6)
    out.prism(frame, (*head, height - 0.2), (*head, height + 0.06), PAINT, (0.5, 0.55, 0.55))
    out.cast(
        [frame(-half, 0, 0), frame(half, 0, 0), frame(-half, 0, height), frame(half, 0, height)]
    )


def add_sign(
    out: SurfaceBuilder, rng: np.random.Generator, x: float, y: float, heading: float
) -> None:
    """Add a traffic sign or a traffic light on its post, facing against ``heading`` (radians)."""
    out.begin(POLE, (x, y))
    frame = Frame(x, y, heading)
    kind = int(rng.integers(7))
    radius = float(rng.uniform(0.50, 0.70))
    half, height = float(rng.uniform(0.07, 0.10)), float(rng.uniform(2.0, 2.7))
    color = pick(rng, METALS[:2])
    top = height + (1.2 if kind == 6 else radius)
    out.prism(frame, (-half, half, -half, half, 0.0), (-half, half, -half, half, top), PAINT, color)
    out.cast([frame(-half, 0, 0), frame(half, 0, 0), frame(-half, 0, top), frame(half, 0, top)])
    out.begin(SIGN_CLASS, (x, y))
    if kind == 6:
        _add_lights(out, rng, frame, height)
        return
    corners = {1: 3, 3: 4, 4: 8, 5: 4}.get(kind, 14)
    turn = {3: math.pi / 4, 4: math.pi / 8, 5: 0.0}.get(kind, math.pi / 2)
    stretch = float(rng.uniform(1.2, 1.7)) if kind == 3 else 1.0
    if kind == 1:
        radius *= 1.2
    angles = [turn + 2 * math.pi * i / corners for i in range(corners)]
    size = radius * (1.2 if corners == 4 else 1.0)
    outline = [(size * stretch * math.cos(t), size * math.sin(t)) for t in angles]
    face = [frame(a, -half - 0.02, height + radius + b) for a, b in outline]
    right, up = frame(1, 0, 0), (0.0, 0.0, 1 / size)
    right = ((right[0] - x) / (size * stretch), (right[1] - y) / (size * stretch), 0.0)
    out.polygon(
        face,
        SIGN,
        (0.6, 0.6, 0.6),
        (kind, float(rng.integers(256))),
        (frame(0, -half - 0.02, height + radius), right, up),
    )
    back = [frame(a, -half - 0.01, height + radius + b) for a, b in reversed(outline)]
    out.polygon(back, PAINT, (0.22, 0.22, 0.22))


def _add_lights(out: SurfaceBuilder, rng: np.random.Generator, frame: Frame, height: float) -> None:
    box = (-0.3, 0.3, -0.45, -0.12)
    out.prism(frame, (*box, height), (*box, height + 1.4), PAINT, (0.015, 0.015, 0.015))
    on = int(rng.integers(3))
    for i, color in enumerate(((0.05, 0.6, 0.1), (0.05, 0.5, 0.9), (0.05, 0.05, 0.9))):
        tone = 2.2 if i == on else 0.12
        out.ellipsoid(
            frame(0.0, -0.45, height + 0.26 + 0.44 * i),
            (0.17, 0.17, 0.17),
            PAINT,
            tuple(c * tone for c in color),
            (float(i == on),),
        )
