"""Rasterization of the synthetic street: the surface and the depth that each pixel sees."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .classes import BOX_LABELS
from .geometry import FOLIAGE, Camera, Surfaces
from .texture import fractal_noise
from .world import StreetWorld

# Surfaces nearer to the lens than this are clipped, in metres.
NEAR = 0.4
# Ground beyond this many metres is drawn as sky.
FAR = 800.0
SKY_ID, GROUND_ID, FIRST_ID = 0, 1, 2

# The share of the squared radius of a clump of leaves over which its rim is ragged.
LEAF_GAPS = np.float32(0.85)

_SHIFT = 4


@dataclass
class GBuffer:
    """The surface and 1 / depth of every pixel, and the outline of each object.

    Surface 0 is the sky, 1 is the ground, and 2 + i is surface i. ``silhouettes`` maps objects of
    the countable classes to a (H, W) uint8 mask of all the pixels they would cover if nothing stood
    in front of them.
    """

    surface: np.ndarray
    inverse_depth: np.ndarray
    silhouettes: dict[int, np.ndarray]


def rasterize(world: StreetWorld, camera: Camera, size: tuple[int, int]) -> GBuffer:
    """Return the :class:`GBuffer` of ``world`` seen by ``camera`` at ``size`` = (H, W)."""
    xs, ys = (axis.astype(np.float32) for axis in camera.grid(size))
    axes = camera.axes()
    ground = -(ys * axes[1, 2] + axes[2, 2]) / camera.position[2]
    ground = np.where(ground > 1 / FAR, ground, 0).astype(np.float32)
    inverse = np.repeat(ground[:, None], size[1], 1)
    countable = np.flatnonzero(np.isin(world.object_labels, list(BOX_LABELS))).tolist()
    buffer = GBuffer(
        np.where(inverse > 0, GROUND_ID, SKY_ID).astype(np.int32),
        inverse,
        {owner: np.zeros(size, np.uint8) for owner in countable},
    )
    _draw_polygons(world, camera, size, xs, ys, buffer)
    _draw_ellipsoids(world.surfaces, camera, size, xs, ys, buffer)
    return buffer


def clip_near(points: np.ndarray) -> np.ndarray:
    """Clip a convex polygon (k, 3) in camera axes to depths of at least ``NEAR``."""
    kept = []
    corners = points.tolist()
    for a, b in zip(corners, corners[1:] + corners[:1], strict=True):
        if a[2] >= NEAR:
            kept.append(a)
        if (a[2] >= NEAR) != (b[2] >= NEAR):
            share = (NEAR - a[2]) / (b[2] - a[2])
            kept.append([p + share * (q - p) for p, q in zip(a, b, strict=True)])
    return np.array(kept).reshape(-1, 3)


def to_fixed(points: np.ndarray, camera: Camera, size: tuple[int, int]) -> np.ndarray:
    """Project points (k, 3) in camera axes to columns and rows.

    The result is in the fixed-point format in which OpenCV fills polygons.
    """
    scale = camera.focal * size[1]
    centre = ((size[1] - 1) / 2, (size[0] - 1) / 2)
    pixels = points[:, :2] / points[:, 2:] * scale + centre
    return np.clip(np.rint(pixels * (1 << _SHIFT)), -(2**26), 2**26).astype(np.int32)


def fill(mask: np.ndarray, points: np.ndarray, value: int) -> None:
    """Fill a convex polygon of fixed-point pixels in ``mask``, in place."""
    cv2.fillConvexPoly(mask, points, value, cv2.LINE_8, _SHIFT)


def _put(
    buffer: GBuffer,
    window: tuple[slice, slice],
    inverse: np.ndarray,
    inside: np.ndarray,
    surface: int,
) -> None:
    """Write a surface to the pixels of ``window`` that lie ``inside`` it, if it is the nearest."""
    held = buffer.inverse_depth[window]
    wins = inverse > held
    wins &= inside
    held[wins] = inverse[wins]
    buffer.surface[window][wins] = FIRST_ID + surface


def _draw_polygons(world: StreetWorld, camera: Camera, size, xs, ys, buffer: GBuffer) -> None:
    """Draw polygons from near to far; skip one whose window holds only nearer surfaces."""
    surfaces = world.surfaces
    if surfaces.num_polygons == 0:
        return
    local, starts = camera.to_camera(surfaces.vertices), surfaces.starts
    offset = np.einsum(
        'ij,ij->i',
        surfaces.normal[: len(starts) - 1],
        surfaces.vertices[starts[:-1]] - camera.position,
    )
    depth_min = np.minimum.reduceat(local[:, 2], starts[:-1])
    depth_max = np.maximum.reduceat(local[:, 2], starts[:-1])
    pixels = to_fixed(np.maximum(local, (-np.inf, -np.inf, NEAR)), camera, size)
    low, high = (op.reduceat(pixels, starts[:-1]) >> _SHIFT for op in (np.minimum, np.maximum))
    whole = depth_min >= NEAR
    low, high = (np.where(whole[:, None], v, edge) for v, edge in ((low, 0), (high, size[::-1])))
    low, high = np.maximum(low, 0), np.minimum(high + 2, size[::-1])
    seen = np.flatnonzero((offset < -1e-3) & (depth_max > NEAR) & (high > low).all(1))
    seen = seen[np.argsort(depth_min[seen], kind='stable')]
    planes = (surfaces.normal[seen] @ camera.axes().T / offset[seen, None]).astype(np.float32)
    windows = np.concatenate([low, high], 1)[seen].tolist()
    # Border pixels of the filled outline may have their centres outside it, so their depth is
    # clamped to that of the surface.
    nearest = (1 / np.maximum(depth_min[seen], NEAR)).tolist()
    farthest = (1 / depth_max[seen]).tolist()
    mask, owners = np.zeros(size, np.uint8), surfaces.owner.tolist()
    for order, i in enumerate(seen.tolist()):
        x0, y0, x1, y1 = windows[order]
        points = (
            pixels[starts[i] : starts[i + 1]]
            if whole[i]
            else to_fixed(clip_near(local[starts[i] : starts[i + 1]]), camera, size)
        )
        outline = buffer.silhouettes.get(owners[i])
        if outline is not None:
            fill(outline, points, 1)
        window = np.s_[y0:y1, x0:x1]
        if buffer.inverse_depth[window].min() >= nearest[order]:
            continue
        fill(mask, points, 1)
        a, b, c = planes[order]
        inverse = (a * xs[x0:x1]) + (b * ys[y0:y1] + c)[:, None]
        if nearest[order] > 1.01 * farthest[order]:
            np.minimum(inverse, nearest[order], out=inverse)
            np.maximum(inverse, farthest[order], out=inverse)
        _put(buffer, window, inverse, mask[window].view(bool), i)
        mask[window] = 0


def _draw_ellipsoids(surfaces: Surfaces, camera: Camera, size, xs, ys, buffer: GBuffer) -> None:
    """Draw ellipsoids from near to far; leaves have gaps at the rim of every clump."""
    first = surfaces.num_polygons
    centres, axes = camera.to_camera(surfaces.centres), camera.axes()
    reach = surfaces.radii.max(1, initial=0)
    scale = camera.focal * size[1]
    depth = np.maximum(centres[:, 2], NEAR)
    x, y = centres[:, 0] / depth, centres[:, 1] / depth
    # A bound on the outline of the enclosing sphere that also holds off the axis.
    bound = reach / np.maximum(depth - reach, 0.1) * (1 + np.maximum(np.abs(x), np.abs(y))) * scale
    columns, rows = x * scale + (size[1] - 1) / 2, y * scale + (size[0] - 1) / 2
    low = np.maximum(np.stack([columns - bound, rows - bound], 1), 0).astype(np.int64)
    high = np.minimum(
        np.maximum(np.stack([columns + bound, rows + bound], 1), -2) + 2, size[::-1]
    ).astype(np.int64)
    seen = np.flatnonzero((centres[:, 2] - reach > NEAR) & (high > low).all(1) & (bound > 0.6))
    seen = seen[np.argsort(centres[seen, 2] - reach[seen], kind='stable')]
    shapes = axes / surfaces.radii[:, None]
    to_centre = (surfaces.centres - camera.position) / surfaces.radii
    gram = (shapes @ shapes.transpose(0, 2, 1)).astype(np.float32)
    half = np.einsum('nij,nj->ni', shapes, to_centre).astype(np.float32)
    rest = ((to_centre * to_centre).sum(1) - 1).astype(np.float32)
    owners = surfaces.owner.tolist()
    for i in seen.tolist():
        (x0, y0), (x1, y1) = low[i].tolist(), high[i].tolist()
        outline = buffer.silhouettes.get(owners[first + i])
        window = np.s_[y0:y1, x0:x1]
        if outline is None and buffer.inverse_depth[window].min() * (centres[i, 2] - reach[i]) >= 1:
            continue
        square, dot = _quadric(gram[i], half[i], xs[x0:x1], ys[y0:y1, None])
        root = dot * dot
        root -= square * rest[i]
        edge = 0.0
        if surfaces.material[first + i] == FOLIAGE:
            texel = 22 * centres[i, 2] / scale
            edge = _ragged((y0, y1, rows[i]), (x0, x1, columns[i]), texel, i) * square
        inside = root > edge
        inverse = square / (dot - np.sqrt(np.maximum(root, 0)))
        if outline is not None:
            outline[window] |= inside
        _put(buffer, window, inverse, inside, first + i)


def _quadric(gram, half, x, y) -> tuple[np.ndarray, np.ndarray]:
    """Return the coefficients of t^2 and of -2t along the ray of each pixel.

    They are computed in the space where the ellipsoid is a unit sphere.
    """
    square = x * (gram[0, 0] * x + 2 * gram[0, 2]) + (
        y * (gram[1, 1] * y + 2 * gram[1, 2]) + gram[2, 2]
    )
    if abs(gram[0, 1]) > 1e-9:
        square += (2 * gram[0, 1] * y) * x
    return square, half[0] * x + (half[1] * y + half[2])


def _ragged(rows: tuple, columns: tuple, texel: float, number: int) -> np.ndarray:
    """Return how much of the rim of a clump of leaves is missing.

    The pattern is fixed to the clump.
    """
    v = ((np.arange(rows[0], rows[1]) - rows[2]) * texel + 37 * number).astype(np.int64) & 255
    u = ((np.arange(columns[0], columns[1]) - columns[2]) * texel + 11 * number).astype(
        np.int64
    ) & 255
    return LEAF_GAPS * fractal_noise()[v[:, None], u]
