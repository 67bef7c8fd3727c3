"""Pinhole camera and surface lists of the synthetic street.

World axes are x to the right, y along the street and z up, in metres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Point = tuple[float, float, float]

# What a surface is made of; the shader has one rule for each.
PAINT, FACADE, ROOF, FOLIAGE, GLASS, SIGN, CLOTH, CAR_PAINT = range(8)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without roll.

    Args:
        position: Optical centre in world metres; z is the height above the ground.
        yaw: Heading in radians, 0 along +y, positive to the right. Defaults to 0.
        pitch: Elevation of the optical axis in radians, positive up. Defaults to 0.
        focal: Focal length divided by the image width. Defaults to 0.85.

    Raises:
        ValueError: If ``focal`` is not positive, or if the camera is not above the ground.

    Example:
        >>> camera = Camera((0.0, 0.0, 1.5))
        >>> camera.project(np.array([[0.0, 10.0, 1.5]]), (65, 97))[0].tolist()
        [48.0, 32.0, 10.0]
    """

    position: Point
    yaw: float = 0.0
    pitch: float = 0.0
    focal: float = 0.85

    def __post_init__(self) -> None:
        if not self.focal > 0:
            raise ValueError(
                f'Camera: focal must be positive, got {self.focal}. Use 0.5 for a wide angle, 1 '
                'for 53 degrees.'
            )
        if not self.position[2] > 0:
            raise ValueError(
                f'Camera: position must be above the ground (z > 0), got z = {self.position[2]}. '
                'Give the height in metres, for example 1.5.'
            )

    def axes(self) -> np.ndarray:
        """The rows right, down and forward as a (3, 3) float64 array in world coordinates."""
        sin_yaw, cos_yaw = math.sin(self.yaw), math.cos(self.yaw)
        sin_pitch, cos_pitch = math.sin(self.pitch), math.cos(self.pitch)
        return np.array(
            [
                [cos_yaw, -sin_yaw, 0.0],
                [sin_yaw * sin_pitch, cos_yaw * sin_pitch, -cos_pitch],
                [sin_yaw * cos_pitch, cos_yaw * cos_pitch, sin_pitch],
            ]
        )

    def grid(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return normalized image coordinates of the pixel columns (W,) and rows (H,).

        ``size`` is (H, W).
        """
        height, width = size
        scale = self.focal * width
        return (
            (np.arange(width) - (width - 1) / 2) / scale,
            (np.arange(height) - (height - 1) / 2) / scale,
        )

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """Transform world ``points`` (n, 3) to camera axes: right, down, depth.

        Depth is measured along the optical axis.
        """
        return (points - np.asarray(self.position)) @ self.axes().T

    def project(self, points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return column, row and depth (n, 3) of world ``points`` (n, 3).

        Pixel centres have integer coordinates.
        """
        local = self.to_camera(points)
        height, width = size
        out = local.copy()
        out[:, :2] = local[:, :2] / local[:, 2:] * (self.focal * width) + (
            (width - 1) / 2,
            (height - 1) / 2,
        )
        return out


class Frame:
    """A local coordinate frame (right, forward, up) in metres.

    Its origin is a point of the ground, and its heading is in radians.
    """

    def __init__(self, x: float, y: float, heading: float = 0.0) -> None:
        self.x, self.y, self.heading = x, y, heading
        self._sin, self._cos = math.sin(heading), math.cos(heading)

    def __call__(self, right: float, forward: float, up: float) -> Point:
        """Return the world coordinates of a local point."""
        return (
            self.x + right * self._cos + forward * self._sin,
            self.y - right * self._sin + forward * self._cos,
            up,
        )

    def turned(self, angle: float) -> Frame:
        """Return the frame at the same place, turned right by ``angle`` radians."""
        return Frame(self.x, self.y, self.heading + angle)


@dataclass(frozen=True)
class Surfaces:
    """The surfaces of a world as arrays: P convex polygons, then E ellipsoids, n = P + E.

    The ``vertices`` (V, 3) of polygon i are the rows ``starts[i]:starts[i + 1]``; ``centres`` and
    ``radii`` are (E, 3). Every surface has ``origin``, ``u_axis``, ``v_axis``, ``normal``,
    ``color`` (n, 3; BGR albedo), ``params`` (n, 6), ``material``, ``label``, ``owner`` (n,; index
    into the objects of the world) and ``lit`` (n,; 0 = no sun).
    """

    vertices: np.ndarray
    starts: np.ndarray
    centres: np.ndarray
    radii: np.ndarray
    origin: np.ndarray
    u_axis: np.ndarray
    v_axis: np.ndarray
    normal: np.ndarray
    color: np.ndarray
    params: np.ndarray
    material: np.ndarray
    label: np.ndarray
    owner: np.ndarray
    lit: np.ndarray

    @property
    def num_polygons(self) -> int:
        """The number of polygons; the ellipsoids follow them."""
        return len(self.starts) - 1


class SurfaceBuilder:
    """Collect surfaces and objects one at a time, and turn them into :class:`Surfaces`."""

    def __init__(self) -> None:
        self._polygons: list[tuple] = []
        self._ellipsoids: list[tuple] = []
        self.object_labels: list[int] = []
        self.object_places: list[tuple[float, float]] = []
        self.casters: list[tuple[int, list[Point]]] = []

    def begin(self, label: int, place: tuple[float, float] = (0.0, 0.0)) -> int:
        """Start a new object of class ``label`` at ``place`` (x, y).

        What is added next belongs to it.
        """
        self.object_labels.append(label)
        self.object_places.append(place)
        return len(self.object_labels) - 1

    def cast(self, points: list[Point]) -> None:
        """Let the convex hull of ``points`` cast a shadow for the object in progress."""
        self.casters.append((len(self.object_labels) - 1, points))

    def polygon(self, points: list[Point], material: int, color, params=(), axes=None) -> None:
        """Add a convex planar polygon.

        It is visible from the side where its points run counter-clockwise. ``axes`` are the origin,
        the u axis and the v axis of its texture. With None, the texture starts at the first point,
        u points to the second point, and v is perpendicular to u, in metres.
        """
        self._polygons.append((points, material, color, params, axes, len(self.object_labels) - 1))

    def ellipsoid(self, centre: Point, radii: Point, material: int, color, params=()) -> None:
        """Add an ellipsoid whose axes are parallel to those of the world."""
        self._ellipsoids.append(
            (centre, material, color, params, radii, len(self.object_labels) - 1)
        )

    def prism(
        self,
        frame: Frame,
        bottom: tuple,
        top: tuple,
        material: int,
        color,
        lid: bool = True,
        params=(),
    ) -> None:
        """Add a tapered box.

        Args:
            frame: Where the box stands.
            bottom: Extent of the lower face, (left, right, back, front, z) in the axes of
                ``frame``.
            top: Extent of the upper face, in the same form.
            material: Material of the faces.
            color: BGR albedo of the faces.
            lid: Whether to add the upper face. Defaults to True.
            params: Shader parameters. Defaults to ().
        """
        corners = []
        for left, right, back, front, z in (bottom, top):
            corners.append(
                [
                    frame(left, back, z),
                    frame(right, back, z),
                    frame(right, front, z),
                    frame(left, front, z),
                ]
            )
        low, high = corners
        for i, j in ((0, 1), (1, 2), (2, 3), (3, 0)):
            self.polygon([low[i], low[j], high[j], high[i]], material, color, params)
        if lid:
            self.polygon(high, material, color, params)

    def finish(self) -> Surfaces:
        """Return everything added so far, all lit by the sun."""
        polygons, every = self._polygons, self._polygons + self._ellipsoids
        points = np.array([v for p in polygons for v in p[0]], np.float64).reshape(-1, 3)
        starts = np.zeros(len(polygons) + 1, np.int64)
        np.cumsum([len(p[0]) for p in polygons], out=starts[1:])
        origin = np.zeros((len(every), 3))
        u_axis, v_axis, normal = (
            np.tile(row, (len(every), 1)) for row in ((0.7, 0.7, 0), (0.0, 0, 1), (0.0, 0, 1))
        )
        own = slice(0, len(polygons))
        origin[own] = points[starts[:-1]]
        u_axis[own] = _unit(points[starts[:-1] + 1] - origin[own])
        normal[own] = _unit(np.cross(u_axis[own], points[starts[1:] - 1] - origin[own]))
        v_axis[own] = np.cross(normal[own], u_axis[own])
        for i, polygon in enumerate(polygons):
            if polygon[4] is not None:
                origin[i], u_axis[i], v_axis[i] = polygon[4]
        params = np.zeros((len(every), 6), np.float32)
        for i, surface in enumerate(every):
            if surface[3]:
                params[i, : len(surface[3])] = surface[3]
        owner = np.array([surface[5] for surface in every], np.int32)
        return Surfaces(
            vertices=points,
            starts=starts,
            centres=np.array([e[0] for e in self._ellipsoids], np.float64).reshape(-1, 3),
            radii=np.array([e[4] for e in self._ellipsoids], np.float64).reshape(-1, 3),
            origin=origin.astype(np.float32),
            u_axis=u_axis.astype(np.float32),
            v_axis=v_axis.astype(np.float32),
            normal=normal,
            color=np.array([surface[2] for surface in every], np.float32).reshape(-1, 3),
            params=params,
            material=np.array([surface[1] for surface in every], np.uint8),
            owner=owner,
            label=np.array(self.object_labels, np.uint8)[owner],
            lit=np.ones(len(every), np.float32),
        )


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.sqrt(np.maximum((vectors * vectors).sum(1, keepdims=True), 1e-24))
