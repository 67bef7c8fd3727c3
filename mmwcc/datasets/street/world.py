"""A random street with its weather and everything in it, independent of any camera."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from .classes import BUILDING, CAR, PEDESTRIAN, POLE, SIGN_CLASS
from .geometry import Camera, SurfaceBuilder, Surfaces
from .layout import Layout
from .placement import populate
from .weather import Weather

__all__ = ['StreetWorld']


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
        layout, weather = Layout.sample(rng), Weather.sample(rng)
        builder = populate(rng, layout)
        return cls(layout, weather, _sample_viewpoint(rng, layout), builder)


def _sample_viewpoint(rng: np.random.Generator, layout: Layout) -> Camera:
    lateral = layout.drive_side * layout.half_width * float(rng.uniform(0.18, 0.4))
    position = (lateral, 0.0, float(rng.uniform(1.4, 2.3)))
    return Camera(
        position,
        yaw=float(np.clip(rng.normal(0, 0.07), -0.2, 0.2)),
        pitch=float(rng.uniform(-0.05, 0.07)),
        focal=float(rng.uniform(0.75, 1.0)),
    )


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
