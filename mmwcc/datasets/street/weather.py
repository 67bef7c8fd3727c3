"""The weather of the synthetic street: light and air."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class _Sky(NamedTuple):
    """The ranges that a kind of weather is drawn from.

    Colours are BGR in linear light.

    Attributes:
        sun_color: Light of the sun.
        ambient: Light from everywhere else.
        zenith: Colour of the sky above.
        horizon: Colour of the sky at the horizon, and of distant air.
        cover: Least and largest share of clouds.
        visibility: Least and largest distance of sight in metres.
    """

    sun_color: tuple[float, float, float]
    ambient: tuple[float, float, float]
    zenith: tuple[float, float, float]
    horizon: tuple[float, float, float]
    cover: tuple[float, float]
    visibility: tuple[float, float]


_SUNNY, _CLOUDY, _EVENING, _RAIN = range(4)
_SKIES = {
    _SUNNY: _Sky(
        sun_color=(0.95, 1.05, 1.15),
        ambient=(0.46, 0.40, 0.36),
        zenith=(0.62, 0.36, 0.20),
        horizon=(0.90, 0.80, 0.72),
        cover=(0.1, 0.7),
        visibility=(220, 500),
    ),
    _CLOUDY: _Sky(
        sun_color=(0.06, 0.06, 0.06),
        ambient=(0.66, 0.64, 0.62),
        zenith=(0.66, 0.64, 0.62),
        horizon=(0.78, 0.78, 0.78),
        cover=(0.7, 1.0),
        visibility=(90, 220),
    ),
    _EVENING: _Sky(
        sun_color=(0.36, 0.72, 1.10),
        ambient=(0.46, 0.36, 0.32),
        zenith=(0.50, 0.32, 0.24),
        horizon=(0.48, 0.66, 0.92),
        cover=(0.2, 0.7),
        visibility=(130, 320),
    ),
    _RAIN: _Sky(
        sun_color=(0.03, 0.03, 0.03),
        ambient=(0.50, 0.46, 0.43),
        zenith=(0.52, 0.50, 0.48),
        horizon=(0.62, 0.61, 0.60),
        cover=(0.8, 1.0),
        visibility=(50, 110),
    ),
}


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

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Weather:
        """Return random weather: sun, clouds, evening or rain."""
        kind = rng.choice(4, p=(0.45, 0.2, 0.2, 0.15))
        azimuth = float(rng.uniform(0, 2 * math.pi))
        elevation = math.radians(
            float(rng.uniform(10, 22) if kind == _EVENING else rng.uniform(24, 62))
        )
        sun = (
            math.cos(elevation) * math.sin(azimuth),
            math.cos(elevation) * math.cos(azimuth),
            math.sin(elevation),
        )
        sky = _SKIES[kind]
        return cls(
            sun=sun,
            sun_color=np.array(sky.sun_color, np.float32) * float(rng.uniform(0.85, 1.2)),
            ambient=np.array(sky.ambient, np.float32) * float(rng.uniform(0.85, 1.15)),
            zenith=np.array(sky.zenith, np.float32) * float(rng.uniform(0.85, 1.15)),
            horizon=np.array(sky.horizon, np.float32) * float(rng.uniform(0.9, 1.1)),
            cloud_cover=float(rng.uniform(*sky.cover)),
            cloud_shift=tuple(rng.uniform(0, 256, 2).tolist()),
            visibility=float(rng.uniform(*sky.visibility)),
            exposure=float(rng.uniform(0.8, 1.25)),
            tint=np.float32(rng.uniform(0.94, 1.06, 3)),
            wetness=float(rng.uniform(0.5, 1.0)) if kind == _RAIN else 0.0,
            noise=float(rng.uniform(0.008, 0.022)),
        )
