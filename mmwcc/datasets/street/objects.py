"""The objects of the synthetic street, each built from a few polygons and ellipsoids."""

from __future__ import annotations

import math

import numpy as np

from .geometry import (
    CAR_PAINT,
    CLOTH,
    FACADE,
    FOLIAGE,
    GLASS,
    PAINT,
    ROOF,
    SIGN,
    Frame,
    SurfaceBuilder,
)

CLASSES = ('sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'car', 'pedestrian')
SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN_CLASS, CAR, PEDESTRIAN = range(9)

# Albedo in BGR, linear light.
WALLS = (
    (0.10, 0.14, 0.30),
    (0.14, 0.20, 0.36),
    (0.22, 0.30, 0.40),
    (0.40, 0.48, 0.54),
    (0.50, 0.56, 0.60),
    (0.34, 0.36, 0.38),
    (0.30, 0.34, 0.30),
    (0.42, 0.40, 0.34),
    (0.16, 0.18, 0.20),
    (0.30, 0.44, 0.52),
)
ROOFS = ((0.07, 0.08, 0.10), (0.06, 0.09, 0.20), (0.12, 0.12, 0.13), (0.08, 0.10, 0.14))
PAINTS = (
    (0.02, 0.02, 0.02),
    (0.45, 0.45, 0.45),
    (0.65, 0.66, 0.66),
    (0.18, 0.18, 0.18),
    (0.03, 0.03, 0.35),
    (0.32, 0.12, 0.03),
    (0.20, 0.06, 0.02),
    (0.05, 0.20, 0.06),
    (0.06, 0.32, 0.50),
    (0.12, 0.22, 0.26),
)
FABRICS = (
    (0.03, 0.03, 0.04),
    (0.20, 0.06, 0.04),
    (0.05, 0.05, 0.35),
    (0.50, 0.50, 0.52),
    (0.06, 0.22, 0.10),
    (0.05, 0.35, 0.50),
    (0.24, 0.10, 0.20),
    (0.10, 0.12, 0.20),
    (0.36, 0.24, 0.10),
    (0.12, 0.10, 0.09),
)
SKINS = ((0.30, 0.40, 0.60), (0.20, 0.28, 0.46), (0.08, 0.12, 0.24), (0.24, 0.34, 0.52))
METALS = (
    (0.10, 0.11, 0.11),
    (0.26, 0.26, 0.25),
    (0.05, 0.06, 0.05),
    (0.08, 0.12, 0.07),
    (0.36, 0.36, 0.35),
)


def _pick(
    rng: np.random.Generator, palette: tuple, spread: float = 0.15
) -> tuple[float, float, float]:
    place, tone, *tint = rng.random(5).tolist()
    base = palette[int(place * len(palette))]
    tone = 1 + spread * (2 * tone - 1)
    return tuple(
        b * tone * (1 + 0.25 * spread * (2 * t - 1)) for b, t in zip(base, tint, strict=True)
    )


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
    wall = _pick(rng, WALLS)
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
    roof = _pick(rng, ROOFS)
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
            out.prism(frame, (*hut, height), (*hut, height + 2.8), PAINT, _pick(rng, WALLS))
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
    bark = _pick(rng, ((0.07, 0.10, 0.14), (0.12, 0.14, 0.16)))
    out.prism(
        frame,
        (-trunk, trunk, -trunk, trunk, 0.0),
        (-trunk * 0.6, trunk * 0.6, -trunk * 0.6, trunk * 0.6, crown),
        PAINT,
        bark,
        lid=False,
    )
    leaf = _pick(
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
    color = _pick(rng, METALS)
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
    color = _pick(rng, METALS[:2])
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


def add_pedestrian(
    out: SurfaceBuilder, rng: np.random.Generator, x: float, y: float, heading: float
) -> None:
    """Add a person walking along ``heading`` (radians)."""
    out.begin(PEDESTRIAN, (x, y))
    s = float(rng.uniform(0.92, 1.12))
    frame = Frame(x, y, heading)
    coat, trousers = _pick(rng, FABRICS, 0.3), _pick(rng, FABRICS, 0.3)
    skin, hair = (
        _pick(rng, SKINS),
        _pick(rng, ((0.02, 0.02, 0.03), (0.05, 0.10, 0.16), (0.2, 0.25, 0.3))),
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


def add_car(
    out: SurfaceBuilder, rng: np.random.Generator, x: float, y: float, heading: float
) -> None:
    """Add a saloon, an estate, a tall car or a van, driving along ``heading`` (radians)."""
    out.begin(CAR, (x, y))
    kind = int(rng.choice(4, p=(0.35, 0.3, 0.2, 0.15)))
    length, half, waist, top = (
        (2.15, 0.90, 0.88, 1.45),
        (2.1, 0.88, 0.90, 1.52),
        (2.3, 0.96, 1.05, 1.75),
        (2.6, 1.02, 1.15, 2.25),
    )[kind]
    nose, tail = ((0.55, -1.75), (0.65, -2.0), (0.7, -2.15), (1.75, -2.55))[kind]
    slope = (0.75, 0.7, 0.6, 0.7)[kind]
    paint, frame = _pick(rng, PAINTS, 0.3), Frame(x, y, heading)
    inset = 0.14 if kind != 3 else 0.06
    out.prism(
        frame,
        (-half, half, -length, length, 0.28),
        (-half, half, -length, length, 0.62),
        CAR_PAINT,
        paint,
        lid=False,
    )
    out.prism(
        frame,
        (-half, half, -length, length, 0.62),
        (-half + 0.06, half - 0.06, -length + 0.05, length - 0.18, waist),
        CAR_PAINT,
        paint,
    )
    low = (-half + 0.06, half - 0.06, tail, nose + slope, waist)
    high = (
        -half + inset + 0.06,
        half - inset - 0.06,
        tail + (0.45 if kind == 0 else 0.18),
        nose,
        top,
    )
    out.prism(frame, low, high, CAR_PAINT, paint)
    _add_windows(out, frame, low, high)
    _add_fittings(out, frame, half, length, waist)
    out.prism(
        frame,
        (-half + 0.1, half - 0.1, -length + 0.1, length - 0.1, 0.12),
        (-half + 0.1, half - 0.1, -length + 0.1, length - 0.1, 0.3),
        PAINT,
        (0.01, 0.01, 0.01),
        lid=False,
    )
    out.cast(
        [frame(a, b, z) for a in (-half, half) for b in (-length, length) for z in (0.0, waist)]
        + [frame(a, b, top) for a in high[:2] for b in high[2:4]]
    )


def _add_windows(out: SurfaceBuilder, frame: Frame, low: tuple, high: tuple) -> None:
    def between(t: float) -> tuple:
        left, right, back, front, z = (p + t * (q - p) for p, q in zip(low, high, strict=True))
        return (left - 0.015, right + 0.015, back - 0.015, front + 0.015, z)

    a, b = between(0.12), between(0.84)
    color = (0.03, 0.028, 0.025)
    for i, (p, q) in enumerate((((0, 2), (1, 2)), ((1, 3), (0, 3)))):
        gap = 0.10 if i == 0 else -0.10
        out.polygon(
            [
                frame(a[p[0]] + gap, a[p[1]], a[4]),
                frame(a[q[0]] - gap, a[q[1]], a[4]),
                frame(b[q[0]] - gap, b[q[1]], b[4]),
                frame(b[p[0]] + gap, b[p[1]], b[4]),
            ],
            GLASS,
            color,
        )
    for side, first, last in ((1, 2, 3), (0, 3, 2)):
        for t0, t1 in ((0.06, 0.48), (0.53, 0.93)):
            y0, y1 = (a[first] + t * (a[last] - a[first]) for t in (t0, t1))
            z0, z1 = (b[first] + t * (b[last] - b[first]) for t in (t0, t1))
            out.polygon(
                [
                    frame(a[side], y0, a[4]),
                    frame(a[side], y1, a[4]),
                    frame(b[side], z1, b[4]),
                    frame(b[side], z0, b[4]),
                ],
                GLASS,
                color,
            )


def _add_fittings(
    out: SurfaceBuilder, frame: Frame, half: float, length: float, waist: float
) -> None:
    def plate(x0: float, x1: float, y: float, z0: float, z1: float, color, params=()) -> None:
        points = [frame(x0, y, z0), frame(x1, y, z0), frame(x1, y, z1), frame(x0, y, z1)]
        out.polygon(
            points if y < 0 else [points[1], points[0], points[3], points[2]], PAINT, color, params
        )

    for y, color in ((-length - 0.02, (0.03, 0.03, 0.45)), (length + 0.02, (0.75, 0.78, 0.78))):
        for x in (-half + 0.05, half - 0.35):
            plate(x, x + 0.3, y, 0.52, 0.64, color, (0.6,))
        plate(-0.26, 0.26, y, 0.4, 0.54, (0.2, 0.6, 0.65) if y < 0 else (0.65, 0.65, 0.65))
        plate(-half + 0.05, half - 0.05, y * 0.999, 0.28, 0.36, (0.02, 0.02, 0.02))
    turns = [2 * math.pi * i / 10 for i in range(10)]
    for side in (-1, 1):
        for y in (-length * 0.62, length * 0.64):
            for radius, push, color in (
                (0.33, 0.02, (0.012, 0.012, 0.012)),
                (0.19, 0.03, (0.2, 0.2, 0.2)),
            ):
                out.polygon(
                    [
                        frame(
                            side * (half + push),
                            y + side * radius * math.cos(t),
                            0.33 + radius * math.sin(t),
                        )
                        for t in turns
                    ],
                    PAINT,
                    color,
                )
