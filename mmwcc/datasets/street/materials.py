"""Facades and traffic signs, as patterns computed from the position on the surface."""

from __future__ import annotations

import numpy as np

from .texture import SIZE, white_noise

_GLASS = np.array([0.045, 0.04, 0.035], np.float32)
_FRAME = np.array([0.55, 0.56, 0.56], np.float32)
_CURTAIN = np.array([0.30, 0.34, 0.36], np.float32)


def _box(position: np.ndarray, half: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """Return how much of a pixel lies within ``half`` of 0, both in the units of ``position``."""
    low = np.maximum(position - footprint / 2, -half)
    high = np.minimum(position + footprint / 2, half)
    return np.clip((high - low) / footprint, 0, 1)


def _hash(a: np.ndarray, b: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """Return a random number in [0, 1) that depends only on integers ``a``, ``b`` and ``seed``."""
    row = (a * 7 + seed * 31).astype(np.int32) & (SIZE - 1)
    column = (b * 13 + seed * 17).astype(np.int32) & (SIZE - 1)
    return white_noise()[row, column]


def facade_albedo(
    params: np.ndarray,
    wall: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    pixel_u: np.ndarray,
    pixel_v: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the albedo of points on facades, and how strongly each reflects the sky.

    Args:
        params: (n, 6): bay width and floor height in metres, the share of a bay and of a floor that
            is window, shop front (1) plus bricks (2), and a number that varies the windows.
        wall: (n, 3) BGR albedo of the wall.
        u: (n,) metres along the facade.
        v: (n,) metres above the ground.
        pixel_u: (n,) size of the pixel along the facade in metres.
        pixel_v: (n,) height of the pixel in metres.

    Returns:
        (n, 3) albedo and (n,) reflectivity.
    """
    bay, floor, share_u, share_v, style, seed = np.ascontiguousarray(params.T)
    shop, brick = style % 2, style >= 2
    column, row = np.floor(u / bay), np.floor(v / floor)
    in_u, in_v = (u / bay - column - 0.5) * bay, (v / floor - row - 0.52) * floor
    street = (row == 0) & (shop > 0)
    half_u = np.where(street, 0.45, share_u / 2) * bay
    half_v = np.where(street, 0.36, share_v / 2) * floor
    window = _box(in_u, half_u, pixel_u) * _box(in_v, half_v, pixel_v)
    around = _box(in_u, half_u + 0.13, pixel_u) * _box(in_v - 0.02, half_v + 0.15, pixel_v)
    # A window wider than 1 m has a vertical bar in the middle; every window has a horizontal one.
    bars = np.maximum(
        _box(in_u, 0.04 + 0 * bay, pixel_u) * (half_u > 0.5),
        _box(in_v - 0.2, 0.04 + 0 * bay, pixel_v),
    )
    tone = _hash(column, row, seed)[:, None]
    blind = np.clip(np.sign(in_v / half_v - (2 - 4.5 * _hash(column + 3, row, seed))), 0, 1)[
        :, None
    ] * (tone > 0.45)
    glass = _GLASS * (0.6 + tone) + blind * 0.6 * (_CURTAIN - _GLASS)
    out = wall * _courses(u, v, pixel_u, pixel_v, brick)[:, None]
    ledge = _box(in_v + 0.52 * floor, 0.12 + 0 * bay, pixel_v) * (row > 0)
    out *= (1 - 0.25 * ledge)[:, None]
    trim = np.minimum(1.6 * wall, 0.7) * 0.5 + _FRAME * 0.35
    out += around[:, None] * (trim - out)
    board = (shop > 0) * _box(v - 0.98 * floor, 0.32 + 0 * bay, pixel_v)
    on = np.flatnonzero(board)
    group, row_of_boards = np.floor(column[on] / 3), np.full(len(on), 9, np.float32)
    shade = np.stack([_hash(group + 5 * k, row_of_boards, seed[on]) for k in range(3)], 1)
    out[on] += board[on, None] * (0.04 + 0.5 * shade * shade - out[on])
    inside = window * (1 - 0.8 * bars)
    out += inside[:, None] * (glass - out)
    plinth = _box(v, 0.45 + 0 * bay, pixel_v)
    out *= (1 - 0.3 * plinth * (1 - window))[:, None]
    return out, (0.30 * inside * (1 - blind[:, 0]) * (0.3 + tone[:, 0])).astype(np.float32)


def _courses(
    u: np.ndarray, v: np.ndarray, pixel_u: np.ndarray, pixel_v: np.ndarray, brick: np.ndarray
) -> np.ndarray:
    """Return the tone of brickwork, or of plaster with vertical streaks of dirt."""
    zero = np.zeros_like(u)
    tone = 0.94 + 0.12 * _hash(np.floor(u * 1.7), zero, zero + 5)
    near = np.flatnonzero(brick & (pixel_v < 0.17) & (pixel_u < 0.42))
    u, v = u[near], v[near]
    course = np.floor(v / 0.16)
    along = u / 0.42 + 0.5 * (course % 2)
    sharp = np.clip(1.4 - pixel_v[near] / 0.12, 0, 1) * np.clip(1.4 - pixel_u[near] / 0.3, 0, 1)
    joint = np.maximum((v / 0.16 - course) < 0.16, (along - np.floor(along)) < 0.08)
    stones = 0.75 + 0.45 * _hash(np.floor(along), course, 0 * u) + 0.25 * joint
    tone[near] = 1 + sharp * (stones - 1)
    return tone


def sign_albedo(params: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the (n, 3) BGR albedo of points on signs.

    ``params`` starts with kind and number; u and v range from -1 to 1.
    """
    kind, number = params[:, 0], params[:, 1]
    square = np.maximum(np.abs(u), np.abs(v)) * 1.4142
    triangle = np.maximum(-2 * v, np.abs(u) * 1.7320508 + v)
    diamond, circle = np.abs(u) + np.abs(v), np.sqrt(u * u + v * v)
    edge = np.select([kind == 1, kind == 3, kind == 5], [triangle, square, diamond], circle)
    mark = (np.abs(u) < 0.12 + 0.1 * (number % 3)) & (np.abs(v + 0.1 * (kind == 1)) < 0.36)
    text = (np.floor(v * 4.5) % 2 == 0) & (np.abs(u) < 0.5) & (np.abs(v) < 0.55)
    white, red = np.array([0.68, 0.68, 0.68], np.float32), np.array([0.04, 0.03, 0.55], np.float32)
    black, blue = np.array([0.02, 0.02, 0.02], np.float32), np.array([0.50, 0.14, 0.02], np.float32)
    green, yellow = (
        np.array([0.10, 0.24, 0.01], np.float32),
        np.array([0.02, 0.48, 0.72], np.float32),
    )
    bar = (np.abs(v) < 0.22) & (np.abs(u) < 0.7)
    field = np.select(
        [(kind == k)[:, None] for k in (2, 3, 4, 5)],
        [blue, np.where((number % 2)[:, None] > 0, green, blue), red, yellow],
        white,
    )
    ink = np.select(
        [(kind == k)[:, None] for k in (2, 3, 4, 5)], [white, white, white, yellow], black
    )
    rim = np.select([(kind == k)[:, None] for k in (0, 1)], [red, red], white)
    pattern = np.select([kind == 3, kind == 4], [text, bar], mark)
    out = np.where(pattern[:, None], ink, field)
    return np.where((edge > np.select([kind <= 1], [0.72], 0.9))[:, None], rim, out).astype(
        np.float32
    )
