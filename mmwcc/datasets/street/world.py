"""A random street with its weather and everything in it, independent of any camera."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from .geometry import Camera, SurfaceBuilder, Surfaces
from .objects import (
    BUILDING,
    CAR,
    CLASSES,
    PEDESTRIAN,
    POLE,
    SIGN_CLASS,
    Frame,
    add_building,
    add_car,
    add_lamp,
    add_pedestrian,
    add_sign,
    add_tree,
)

__all__ = ['BOX_CLASSES', 'CLASSES', 'Layout', 'StreetWorld', 'Weather']

# The countable classes; box labels are indices into this tuple.
BOX_CLASSES = ('sign', 'car', 'pedestrian')
BOX_LABELS = {SIGN_CLASS: 0, CAR: 1, PEDESTRIAN: 2}

# Metres of street in front of and behind the starting point of the camera.
NEAR_END, FAR_END = -12.0, 125.0


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


@dataclass(frozen=True)
class Weather:
    """Light and air.

    Colours are BGR in linear light, and ``sun`` points towards the sun.
    """

    sun: tuple[float, float, float]
    sun_color: np.ndarray
    ambient: np.ndarray
    zenith: np.ndarray
    horizon: np.ndarray
    cloud_cover: float
    cloud_shift: tuple[float, float]
    visibility: float
    exposure: float
    tint: np.ndarray
    wetness: float
    noise: float


class StreetWorld:
    """One street in metres: x right, y along the street, z up, the ground at z = 0.

    Args:
        layout: Layout of road and pavements.
        weather: Light and air.
        viewpoint: The camera of a driver.
        builder: Everything that stands on the ground.

    Attributes:
        surfaces (Surfaces): All polygons and ellipsoids.
        object_labels (np.ndarray): Class of each object, (n,) int64.
        shadows (list[np.ndarray]): Convex polygons on the ground, (k, 2) float32 each.

    Example:
        >>> world = StreetWorld.sample(seed=0, index=3)
        >>> world.viewpoint.position[2] > 1
        True
    """

    def __init__(
        self, layout: Layout, weather: Weather, viewpoint: Camera, builder: SurfaceBuilder
    ) -> None:
        self.layout = layout
        self.weather = weather
        self.viewpoint = viewpoint
        self.object_labels = np.array(builder.object_labels, np.int64)
        surfaces = builder.finish()
        self.shadows, lit = _cast_shadows(builder, weather.sun)
        if len(lit):
            surfaces = replace(surfaces, lit=lit[surfaces.owner])
        self.surfaces: Surfaces = surfaces

    @classmethod
    def sample(cls, seed: int = 0, index: int = 0) -> StreetWorld:
        """Return street number ``index`` of the collection ``seed``, the same on every call."""
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index])))
        layout, weather = _sample_layout(rng), _sample_weather(rng)
        builder = SurfaceBuilder()
        for side in (-1, 1):
            _build_side(builder, rng, layout, side)
            _furnish_side(builder, rng, layout, side)
        _build_backdrop(builder, rng, layout)
        _add_traffic(builder, rng, layout)
        _add_people(builder, rng, layout)
        return cls(layout, weather, _sample_viewpoint(rng, layout), builder)


def _sample_layout(rng: np.random.Generator) -> Layout:
    crossing = (math.inf, math.inf)
    if rng.random() < 0.4:
        start = float(rng.uniform(18, 50))
        crossing = (start, start + float(rng.uniform(8, 12)))
    zebra = float(rng.uniform(9, 30)) if rng.random() < 0.35 else math.inf
    if crossing[0] - 1 < zebra + 3 and zebra < crossing[1] + 1:
        zebra = crossing[0] - 4.5
    return Layout(
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


def _sample_weather(rng: np.random.Generator) -> Weather:
    kind = rng.choice(4, p=(0.45, 0.2, 0.2, 0.15))
    azimuth = float(rng.uniform(0, 2 * math.pi))
    elevation = math.radians(float(rng.uniform(10, 22) if kind == 2 else rng.uniform(24, 62)))
    sun = (
        math.cos(elevation) * math.sin(azimuth),
        math.cos(elevation) * math.cos(azimuth),
        math.sin(elevation),
    )
    sun_color, ambient, zenith, horizon, cover, visibility = (
        (
            (0.95, 1.05, 1.15),
            (0.46, 0.40, 0.36),
            (0.62, 0.36, 0.20),
            (0.90, 0.80, 0.72),
            (0.1, 0.7),
            (220, 500),
        ),
        (
            (0.06, 0.06, 0.06),
            (0.66, 0.64, 0.62),
            (0.66, 0.64, 0.62),
            (0.78, 0.78, 0.78),
            (0.7, 1.0),
            (90, 220),
        ),
        (
            (0.36, 0.72, 1.10),
            (0.46, 0.36, 0.32),
            (0.50, 0.32, 0.24),
            (0.48, 0.66, 0.92),
            (0.2, 0.7),
            (130, 320),
        ),
        (
            (0.03, 0.03, 0.03),
            (0.50, 0.46, 0.43),
            (0.52, 0.50, 0.48),
            (0.62, 0.61, 0.60),
            (0.8, 1.0),
            (50, 110),
        ),
    )[kind]
    return Weather(
        sun=sun,
        sun_color=np.array(sun_color, np.float32) * float(rng.uniform(0.85, 1.2)),
        ambient=np.array(ambient, np.float32) * float(rng.uniform(0.85, 1.15)),
        zenith=np.array(zenith, np.float32) * float(rng.uniform(0.85, 1.15)),
        horizon=np.array(horizon, np.float32) * float(rng.uniform(0.9, 1.1)),
        cloud_cover=float(rng.uniform(*cover)),
        cloud_shift=tuple(rng.uniform(0, 256, 2).tolist()),
        visibility=float(rng.uniform(*visibility)),
        exposure=float(rng.uniform(0.8, 1.25)),
        tint=np.float32(rng.uniform(0.94, 1.06, 3)),
        wetness=float(rng.uniform(0.5, 1.0)) if kind == 3 else 0.0,
        noise=float(rng.uniform(0.008, 0.022)),
    )


def _sample_viewpoint(rng: np.random.Generator, layout: Layout) -> Camera:
    lateral = layout.drive_side * layout.half_width * float(rng.uniform(0.18, 0.4))
    position = (lateral, 0.0, float(rng.uniform(1.4, 2.3)))
    return Camera(
        position,
        yaw=float(np.clip(rng.normal(0, 0.07), -0.2, 0.2)),
        pitch=float(rng.uniform(-0.05, 0.07)),
        focal=float(rng.uniform(0.75, 1.0)),
    )


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


def _cast_shadows(builder: SurfaceBuilder, sun: tuple) -> tuple[list[np.ndarray], np.ndarray]:
    """Project shadows onto the ground; objects in the shadow of a building lose the sun."""
    shadows, dark = [], []
    for owner, corners in builder.casters:
        points = np.asarray(corners, np.float64)
        flat = points[:, :2] - points[:, 2:] * (sun[0] / sun[2], sun[1] / sun[2])
        hull = cv2.convexHull(flat.astype(np.float32)).reshape(-1, 2)
        shadows.append(hull)
        if builder.object_labels[owner] == BUILDING:
            dark.append((hull, *hull.min(0).tolist(), *hull.max(0).tolist()))
    lit = np.ones(len(builder.object_labels), np.float32)
    for i, (label, place) in enumerate(
        zip(builder.object_labels, builder.object_places, strict=True)
    ):
        if label in (CAR, PEDESTRIAN, POLE, SIGN_CLASS) and any(
            x0 < place[0] < x1
            and y0 < place[1] < y1
            and cv2.pointPolygonTest(hull, place, False) > 0
            for hull, x0, y0, x1, y1 in dark
        ):
            lit[i] = 0.0
    return shadows, lit
