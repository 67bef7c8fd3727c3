"""Light, texture, air and lens of the synthetic street: the colour of each pixel's surface."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from .geometry import CAR_PAINT, CLOTH, FACADE, FOLIAGE, GLASS, PAINT, ROOF, SIGN, Camera
from .ground import ground_albedo
from .materials import facade_albedo, sign_albedo
from .raster import FIRST_ID, GROUND_ID, NEAR, GBuffer, clip_near, fill, to_fixed
from .texture import fractal_noise, sample
from .weather import Weather
from .world import StreetWorld

_GROUND_MATERIAL, _SKY_MATERIAL = 14, 15

# How strongly fine and coarse noise change the tone of each material.
_GAINS = np.repeat(np.array([[0.25], [0.2]], np.float32), 16, 1)
_GAINS[:, [FOLIAGE, CLOTH, ROOF, CAR_PAINT]] = [[3.4, 0.9, 0.8, 0.05], [1.5, 0.5, 0.4, 0.05]]


@dataclass
class _View:
    """The values that the steps of shading one image share; maps are (H, W) float32."""

    depth: np.ndarray
    rays: tuple[np.ndarray, np.ndarray, np.ndarray]
    points: tuple[np.ndarray, np.ndarray, np.ndarray]
    pixel: np.ndarray
    material: np.ndarray
    index: np.ndarray


def shade(
    world: StreetWorld,
    camera: Camera,
    buffer: GBuffer,
    labels: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the (H, W, 3) uint8 BGR image of a rasterized world.

    ``rng`` drives the sensor noise.
    """
    view = _make_view(world, camera, buffer)
    surfaces = world.surfaces
    zero, up = np.zeros((2, 3), np.float32), np.array([[0, 0, 1]] * 2, np.float32)
    normal = np.concatenate([up, surfaces.normal.astype(np.float32)])[buffer.surface]
    albedo = np.concatenate([zero, surfaces.color])[buffer.surface]
    lit = np.concatenate([np.ones(2, np.float32), surfaces.lit])[buffer.surface]
    _round_normals(world, view, normal)
    u, v = _texture_coordinates(world, view, buffer.surface)
    noise = fractal_noise()
    detail = 1 / (1 + (10 * view.pixel) ** 2)
    fine = (sample(noise, u * 26, v * 26) - 0.5) * detail
    coarse = sample(noise, u * 2.3 + 31, v * 2.3 + 77) - 0.5
    emission = _apply_materials(world, view, albedo, normal, u, v, fine, coarse, labels)
    lit *= _ground_light(world, camera, view.material)
    color = _light(world.weather, view, albedo, normal, lit) + emission
    _reflect(world.weather, view, color, normal)
    color = _add_air(world.weather, view, color, coarse)
    return _expose(world.weather, color, rng)


def _make_view(world: StreetWorld, camera: Camera, buffer: GBuffer) -> _View:
    size = buffer.surface.shape
    xs, ys = camera.grid(size)
    axes = camera.axes()
    rays = tuple(
        (xs[None] * axes[0, k] + (ys * axes[1, k] + axes[2, k])[:, None]).astype(np.float32)
        for k in range(3)
    )
    depth = 1 / np.maximum(buffer.inverse_depth, np.float32(1e-4))
    points = tuple(
        np.float32(p) + ray * depth for p, ray in zip(camera.position, rays, strict=True)
    )
    beyond = np.array([_SKY_MATERIAL, _GROUND_MATERIAL], np.uint8)
    material = np.concatenate([beyond, world.surfaces.material])[buffer.surface]
    pixel = depth / np.float32(camera.focal * size[1])
    return _View(depth, rays, points, pixel, material, buffer.surface - FIRST_ID)


def _round_normals(world: StreetWorld, view: _View, normal: np.ndarray) -> None:
    first = world.surfaces.num_polygons
    where = np.nonzero(view.index >= first)
    which = view.index[where] - first
    points = np.stack([p[where] for p in view.points], 1)
    centres, radii = (
        table[which].astype(np.float32) for table in (world.surfaces.centres, world.surfaces.radii)
    )
    out = (points - centres) / (radii * radii)
    normal[where] = out / np.sqrt(np.maximum((out * out).sum(1, keepdims=True), 1e-12))


def _texture_coordinates(
    world: StreetWorld, view: _View, surface: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the position of each pixel on its surface in metres; for the sky, on the clouds."""
    s = world.surfaces
    maps = []
    for axis, ground in ((s.u_axis, (1, 0, 0)), (s.v_axis, (0, 1, 0))):
        table = np.zeros((len(axis) + FIRST_ID, 4), np.float32)
        table[FIRST_ID:, :3] = axis
        table[FIRST_ID:, 3] = -np.einsum('ij,ij->i', axis, s.origin)
        table[GROUND_ID, :3] = ground
        t = table[surface]
        maps.append(
            view.points[0] * t[..., 0]
            + view.points[1] * t[..., 1]
            + view.points[2] * t[..., 2]
            + t[..., 3]
        )
    sky = view.material == _SKY_MATERIAL
    rise = np.maximum(view.rays[2], 0) + np.float32(0.12)
    for texture, ray, shift in zip(maps, view.rays, world.weather.cloud_shift, strict=False):
        np.copyto(texture, ray / rise * 14 + np.float32(shift), where=sky)
        np.clip(texture, -1000, 1000, out=texture)
    return maps[0], maps[1]


def _apply_materials(world, view, albedo, normal, u, v, fine, coarse, labels) -> np.ndarray:
    """Paint every material onto ``albedo`` in place, and return the emitted light, (H, W, 3)."""
    emission = np.zeros_like(albedo)
    fine_gain, coarse_gain = _GAINS[:, view.material]
    albedo *= np.clip(1 + fine_gain * fine + coarse_gain * coarse, 0.15, 2.2)[..., None]
    flat, glow = albedo.reshape(-1, 3), emission.reshape(-1, 3)

    def at(where: np.ndarray, *maps: np.ndarray) -> list[np.ndarray]:
        return [m.ravel()[where] for m in maps]

    where = np.flatnonzero(view.material == _GROUND_MATERIAL)
    x, y, pixel, fall, *rest = at(
        where, *view.points[:2], view.pixel, view.rays[2], fine, coarse, labels
    )
    flat[where] = ground_albedo(world.layout, x, y, pixel, pixel / np.maximum(-fall, 1e-3), *rest)
    where = np.flatnonzero(view.material == FACADE)
    if len(where):
        surface, along, up, pixel, *rays = at(where, view.index, u, v, view.pixel, *view.rays)
        facing = np.abs(np.einsum('ki,ik->i', rays, normal.reshape(-1, 3)[where]))
        params = world.surfaces.params[surface]
        flat[where], glass = facade_albedo(
            params, flat[where], along, up, pixel / np.maximum(facing, 0.08), pixel
        )
        glow[where] = (glass * np.clip(rays[2] * 1.5 + 0.25, 0, 1))[:, None] * world.weather.horizon
    where = np.flatnonzero(view.material == SIGN)
    if len(where):
        surface, *position = at(where, view.index, u, v)
        flat[where] = sign_albedo(world.surfaces.params[surface], *position)
    bright = world.surfaces.params[:, 0] * (world.surfaces.material == PAINT)
    lamps = np.concatenate([np.zeros(FIRST_ID, bool), bright > 0])[view.index + FIRST_ID]
    lamps = np.flatnonzero(lamps)
    glow[lamps] += flat[lamps] * bright[view.index.ravel()[lamps], None]
    return emission


def _ground_light(world: StreetWorld, camera: Camera, material: np.ndarray) -> np.ndarray:
    """Return 1 where the sun reaches the ground, and less in the shade."""
    shadow = np.zeros(material.shape, np.uint8)
    corners = np.concatenate([np.zeros((0, 2)), *world.shadows])
    local = camera.to_camera(np.column_stack([corners, np.zeros(len(corners))]))
    stops = np.cumsum([len(hull) for hull in world.shadows]).tolist()
    for start, stop in zip([0, *stops], stops, strict=False):
        points = local[start:stop]
        if points[:, 2].min() < NEAR:
            points = clip_near(points)
        if len(points) >= 3:
            fill(shadow, to_fixed(points, camera, material.shape), 255)
    light = 1 - cv2.blur(shadow, (3, 3)).astype(np.float32) / 255
    return np.where(material == _GROUND_MATERIAL, light, np.float32(1))


def _light(weather: Weather, view: _View, albedo, normal, lit) -> np.ndarray:
    sun = np.array(weather.sun, np.float32)
    facing = normal @ sun
    leaves = view.material == FOLIAGE
    facing = np.where(leaves, 0.35 + 0.65 * facing, facing)
    sky_share = 0.68 + 0.32 * normal[..., 2]
    height = np.clip(view.points[2] / 2.5, 0, 1)
    upright = (np.abs(normal[..., 2]) < 0.5) & (view.material != _SKY_MATERIAL)
    sky_share *= np.where(upright, 0.72 + 0.28 * height, 1)
    light = (
        sky_share[..., None] * weather.ambient
        + (np.maximum(facing, 0) * lit)[..., None] * weather.sun_color
    )
    # Wet ground is darker and mirrors the sky at grazing angles.
    if weather.wetness:
        ground = (view.material == _GROUND_MATERIAL) * np.float32(weather.wetness)
        grazing = np.clip(1 + view.rays[2] * 3.0, 0, 1) ** 2
        albedo *= (1 - 0.35 * ground)[..., None]
        return albedo * light + (0.22 * ground * grazing)[..., None] * weather.horizon
    return albedo * light


def _reflect(weather: Weather, view: _View, color: np.ndarray, normal: np.ndarray) -> None:
    """Add reflections in car paint and glass: sky above the horizon, the dark street below."""
    where = np.nonzero((view.material == GLASS) | (view.material == CAR_PAINT))
    if not len(where[0]):
        return
    n, rays = normal[where], np.stack([r[where] for r in view.rays], 1)
    rays /= np.sqrt((rays * rays).sum(1, keepdims=True))
    facing = (rays * n).sum(1)
    rise = rays[:, 2] - 2 * facing * n[:, 2]
    grazing = (1 - np.minimum(np.abs(facing), 1)) ** 2
    strength = np.where(view.material[where] == GLASS, 0.18, 0.05) + 0.5 * grazing * grazing
    up = np.clip(rise * 4 + 0.35, 0, 1)[:, None]
    mirrored = up * (
        weather.horizon + (weather.zenith - weather.horizon) * np.clip(rise, 0, 1)[:, None]
    )
    mirrored = mirrored + (1 - up) * 0.12 * weather.ambient
    color[where] += strength[:, None] * (mirrored - color[where])


def _add_air(weather: Weather, view: _View, color: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """Add haze that grows with depth, and put the sky behind everything."""
    clear = 1 / (1 + (view.depth / np.float32(weather.visibility)) ** 2)
    color = weather.horizon * 0.92 + clear[..., None] * (color - weather.horizon * 0.92)
    sky = view.material == _SKY_MATERIAL
    rise = np.clip(view.rays[2][sky], 0, 1)[:, None]
    blend = np.minimum(rise * 2.2, 1)
    blue = weather.horizon + (weather.zenith - weather.horizon) * (blend * (2 - blend))
    cloud = np.clip((coarse[sky][:, None] + weather.cloud_cover - 0.45) * 3.0, 0, 1) * np.clip(
        0.3 + rise * 3, 0, 1
    )
    white = (weather.ambient + 0.55 * weather.sun_color) * (0.85 - 0.5 * coarse[sky][:, None])
    rays = np.stack([r[sky] for r in view.rays], 1)
    towards = np.maximum(
        rays @ np.array(weather.sun, np.float32) / np.sqrt((rays * rays).sum(1)), 0
    )[:, None]
    glow = (towards**8 * 0.35 + towards**64 * 0.6) * weather.sun_color
    color[sky] = blue + cloud * (np.minimum(white, 1.1) - blue) + glow
    return color


def _expose(weather: Weather, color: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply lens blur, vignetting, exposure, highlight roll-off, gamma and sensor noise."""
    height, width = color.shape[:2]
    color = cv2.GaussianBlur(color, (3, 3), 0.45)
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) ** 2 for n in (height, width))
    gain = np.float32(1.35 * weather.exposure) * (1 - 0.09 * (y[:, None] + x[None]))
    color = np.maximum(color, 0) * (gain[..., None] * weather.tint)
    color = np.sqrt(color / (1 + 0.45 * color)) * 1.08
    color += _sensor_noise(color.shape, rng) * np.float32(weather.noise)
    return np.clip(np.rint(color * 255), 0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def _normal_noise() -> np.ndarray:
    return np.random.Generator(np.random.PCG64(21)).standard_normal(1 << 20, np.float32)


def _sensor_noise(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return normal noise, cut from a fixed supply at a random place.

    This is ten times faster than drawing new noise.
    """
    count = int(np.prod(shape))
    start = int(rng.integers(1 << 20))
    return np.resize(
        np.roll(_normal_noise(), -start) if start + count > 1 << 20 else _normal_noise()[start:],
        shape,
    )
