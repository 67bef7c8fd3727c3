"""The cars and vans of the synthetic street."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .classes import CAR
from .geometry import CAR_PAINT, GLASS, PAINT, Frame, SurfaceBuilder
from .palettes import PAINTS, pick


class _Body(NamedTuple):
    """The shape of a car, in metres from the ground and from its middle.

    Attributes:
        length: From the middle to either bumper.
        half: From the middle to either side.
        waist: Height of the lower edge of the windows.
        top: Height of the roof.
        nose: Where the roof begins.
        tail: Where the rear window begins.
        slope: How far the windscreen leans forwards.
        rear_slope: How far the rear window leans forwards.
        inset: How far the roof is narrower than the waist, on each side.
    """

    length: float
    half: float
    waist: float
    top: float
    nose: float
    tail: float
    slope: float
    rear_slope: float
    inset: float


_SALOON = _Body(2.15, 0.90, 0.88, 1.45, 0.55, -1.75, 0.75, 0.45, 0.14)
_ESTATE = _Body(2.1, 0.88, 0.90, 1.52, 0.65, -2.0, 0.7, 0.18, 0.14)
_TALL_CAR = _Body(2.3, 0.96, 1.05, 1.75, 0.7, -2.15, 0.6, 0.18, 0.14)
_VAN = _Body(2.6, 1.02, 1.15, 2.25, 1.75, -2.55, 0.7, 0.18, 0.06)
_BODIES = (_SALOON, _ESTATE, _TALL_CAR, _VAN)


def add_car(
    out: SurfaceBuilder, rng: np.random.Generator, x: float, y: float, heading: float
) -> None:
    """Add a saloon, an estate, a tall car or a van, driving along ``heading`` (radians)."""
    out.begin(CAR, (x, y))
    body = _BODIES[int(rng.choice(4, p=(0.35, 0.3, 0.2, 0.15)))]
    half, length = body.half, body.length
    paint, frame = pick(rng, PAINTS, 0.3), Frame(x, y, heading)
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
        (-half + 0.06, half - 0.06, -length + 0.05, length - 0.18, body.waist),
        CAR_PAINT,
        paint,
    )
    low = (-half + 0.06, half - 0.06, body.tail, body.nose + body.slope, body.waist)
    high = (
        -half + body.inset + 0.06,
        half - body.inset - 0.06,
        body.tail + body.rear_slope,
        body.nose,
        body.top,
    )
    out.prism(frame, low, high, CAR_PAINT, paint)
    _add_windows(out, frame, low, high)
    _add_fittings(out, frame, half, length)
    out.prism(
        frame,
        (-half + 0.1, half - 0.1, -length + 0.1, length - 0.1, 0.12),
        (-half + 0.1, half - 0.1, -length + 0.1, length - 0.1, 0.3),
        PAINT,
        (0.01, 0.01, 0.01),
        lid=False,
    )
    out.cast(
        [
            frame(a, b, z)
            for a in (-half, half)
            for b in (-length, length)
            for z in (0.0, body.waist)
        ]
        + [frame(a, b, body.top) for a in high[:2] for b in high[2:4]]
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


def _add_fittings(out: SurfaceBuilder, frame: Frame, half: float, length: float) -> None:
    """Add lights, number plates, bumpers and wheels."""

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
