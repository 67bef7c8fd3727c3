"""What stands and moves on the synthetic street, placed at random along a layout."""

from __future__ import annotations

import math

import numpy as np

from .buildings import add_building
from .cars import add_car
from .geometry import Frame, SurfaceBuilder
from .layout import Layout
from .pedestrians import add_pedestrian
from .roadside import add_lamp, add_sign, add_tree

__all__ = ['populate']

# Metres of street in front of and behind the starting point of the camera.
NEAR_END, FAR_END = -12.0, 125.0


def populate(rng: np.random.Generator, layout: Layout) -> SurfaceBuilder:
    """Return everything that stands on the ground of a street."""
    builder = SurfaceBuilder()
    for side in (-1, 1):
        _build_side(builder, rng, layout, side)
        _furnish_side(builder, rng, layout, side)
    _build_backdrop(builder, rng, layout)
    _add_traffic(builder, rng, layout)
    _add_people(builder, rng, layout)
    return builder


def _build_side(out: SurfaceBuilder, rng: np.random.Generator, layout: Layout, side: int) -> None:
    """Line one side of the street with buildings, and with trees in the gaps."""
    front = layout.half_width + layout.pavement
    setback = float(rng.choice((0.0, 0.0, 1.5, 4.0)))
    gap_share = float(rng.choice((0.08, 0.3)))
    y = NEAR_END + float(rng.uniform(0, 6))
    while y < FAR_END:
        width, depth = float(rng.uniform(8, 20)), float(rng.uniform(9, 13))
        if y + width > layout.crossing[0] - 1.5 and y < layout.crossing[1] + 1.5:
            y = layout.crossing[1] + 1.6
            continue
        middle = y + width / 2
        if rng.random() < gap_share:
            for _ in range(2):
                place = layout.frame(
                    side * (front + float(rng.uniform(1, 8))), y + width * float(rng.random())
                )
                add_tree(out, rng, place.x, place.y, 1.1)
        else:
            place = layout.frame(side * (front + setback), middle)
            # The front faces the road: its own -forward axis points to the centre line.
            add_building(out, rng, place.turned(side * math.pi / 2), width, depth)
        y += width + float(rng.choice((0.0, 0.0, 1.5)))


def _build_backdrop(out: SurfaceBuilder, rng: np.random.Generator, layout: Layout) -> None:
    """Close the view with large blocks behind both rows and at the end of the street."""
    for side in (-1, 1):
        for y in (15.0, 50.0, 85.0, 118.0):
            place = layout.frame(side * float(rng.uniform(48, 60)), y)
            add_building(out, rng, place.turned(side * math.pi / 2), 34.0, 14.0)
    end = layout.frame(0.0, FAR_END + 25)
    for i in range(-3, 4):
        x = end.x + 24.0 * i
        if rng.random() < 0.6:
            add_building(out, rng, Frame(x, end.y + float(rng.uniform(0, 12)), 0.0), 24.0, 14.0)
        else:
            for shift in (-7.0, 0.0, 7.0):
                add_tree(out, rng, x + shift, end.y, 1.5)


def _furnish_side(out: SurfaceBuilder, rng: np.random.Generator, layout: Layout, side: int) -> None:
    """Add street trees, lamp posts and signs along one kerb."""
    kerb = layout.half_width + 0.55
    if rng.random() < 0.55:
        spacing = float(rng.uniform(9, 16))
        for y in np.arange(float(rng.uniform(5, 16)), 75, spacing).tolist():
            if not layout.is_crossing(y, 2.0):
                place = layout.frame(side * (kerb + 0.5), y + 0.5)
                add_tree(out, rng, place.x, place.y, 0.85)
    spacing, shift = float(rng.uniform(15, 24)), float(rng.uniform(6, 15))
    for y in np.arange(shift, 80, spacing).tolist():
        if not layout.is_crossing(y, 0.5):
            place = layout.frame(side * kerb, y)
            add_lamp(out, rng, place.x, place.y, place.heading - side * math.pi / 2)
    y = float(rng.uniform(6, 14))
    while y < 55:
        if not layout.is_crossing(y, 0.2) and rng.random() < 0.8:
            towards = 0.0 if side == layout.drive_side or rng.random() < 0.6 else math.pi
            place = layout.frame(
                side * (kerb + float(rng.uniform(0.0, 0.5))),
                y,
                towards + float(rng.normal(0, 0.15)),
            )
            add_sign(out, rng, place.x, place.y, place.heading)
        y += float(rng.uniform(6, 15))


def _add_traffic(out: SurfaceBuilder, rng: np.random.Generator, layout: Layout) -> None:
    """Park cars along the kerbs and let others drive in both lanes."""
    for side in (-1, 1):
        forwards = 0.0 if side == layout.drive_side else math.pi
        if layout.half_width > 4.5 and rng.random() < 0.75:
            share, y = float(rng.uniform(0.35, 0.9)), float(rng.uniform(4, 10))
            while y < 60:
                if (
                    not layout.is_crossing(y, 3.0)
                    and not layout.zebra - 3 < y < layout.zebra + 6
                    and rng.random() < share
                ):
                    place = layout.frame(
                        side * (layout.half_width - 1.15), y, forwards + float(rng.normal(0, 0.02))
                    )
                    add_car(out, rng, place.x, place.y, place.heading)
                y += float(rng.uniform(5.4, 7.5))
        y = float(rng.uniform(10, 34)) if side == layout.drive_side else float(rng.uniform(5, 25))
        while y < 85:
            lane = side * float(rng.uniform(0.30, 0.36)) * layout.half_width
            place = layout.frame(lane, y, forwards + float(rng.normal(0, 0.02)))
            add_car(out, rng, place.x, place.y, place.heading)
            y += float(rng.uniform(9, 45))
    if math.isfinite(layout.crossing[0]) and rng.random() < 0.6:
        y = sum(layout.crossing) / 2
        lateral = float(rng.uniform(8, 16)) * (1 if rng.random() < 0.5 else -1)
        place = layout.frame(lateral, y, math.pi / 2 * (1 if rng.random() < 0.5 else -1))
        add_car(out, rng, place.x, place.y, place.heading)


def _add_people(out: SurfaceBuilder, rng: np.random.Generator, layout: Layout) -> None:
    """Add people who walk on the pavements and cross the road."""
    for _ in range(int(rng.integers(6, 13))):
        side = 1 if rng.random() < 0.5 else -1
        y = 6.0 + 34.0 * float(rng.random()) ** 1.5
        lateral = side * (layout.half_width + float(rng.uniform(1.0, layout.pavement - 0.4)))
        place = layout.frame(
            lateral, y, float(rng.choice((0.0, math.pi))) + float(rng.normal(0, 0.3))
        )
        add_pedestrian(out, rng, place.x, place.y, place.heading)
        if rng.random() < 0.3:
            place = layout.frame(lateral - side * 0.65, y + 0.1, place.heading)
            add_pedestrian(out, rng, place.x, place.y, place.heading)
    crossing = layout.zebra + 1.5 if math.isfinite(layout.zebra) else float(rng.uniform(12, 30))
    for _ in range(
        int(rng.integers(1, 4)) if math.isfinite(layout.zebra) else int(rng.random() < 0.4)
    ):
        lateral = float(rng.uniform(-1, 1)) * layout.half_width
        place = layout.frame(
            lateral, crossing + float(rng.normal(0, 0.8)), math.pi / 2 * float(rng.choice((-1, 1)))
        )
        add_pedestrian(out, rng, place.x, place.y, place.heading)
