"""Tileable noise that gives every surface of the synthetic street its texture."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

SIZE = 256


@lru_cache(maxsize=1)
def white_noise() -> np.ndarray:
    """Return (256, 256) float32 white noise in [0, 1), the same on every call."""
    noise = np.random.Generator(np.random.PCG64(20)).random((SIZE, SIZE), dtype=np.float32)
    noise.setflags(write=False)
    return noise


@lru_cache(maxsize=1)
def fractal_noise() -> np.ndarray:
    """Return (256, 256) float32 tileable fractal noise stretched to [0, 1].

    It is the same on every call.
    """
    total = np.zeros((SIZE, SIZE), np.float32)
    source = white_noise()
    for octave in range(2, 9):
        cells = 1 << octave
        coarse = np.tile(
            source[octave * 8 : octave * 8 + cells, :cells]
            if cells < 200
            else source[:cells, :cells],
            (3, 3),
        )
        fine = cv2.resize(coarse, (3 * SIZE, 3 * SIZE), interpolation=cv2.INTER_CUBIC)
        total += fine[SIZE : 2 * SIZE, SIZE : 2 * SIZE] * 0.62**octave
    total -= total.min()
    total /= total.max()
    total.setflags(write=False)
    return total


def sample(noise: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Interpolate ``noise`` bilinearly at texels (u, v).

    u and v are (H, W) float32 maps that wrap around.
    """
    return cv2.remap(noise, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
