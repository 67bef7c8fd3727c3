"""The ground z = 0: where road, markings and pavement are, and what colour they have."""

from __future__ import annotations

import numpy as np

from .classes import PAVEMENT, ROAD
from .layout import Layout

_CONCRETE = np.array([0.26, 0.28, 0.29], np.float32)
_KERB = np.array([0.36, 0.38, 0.38], np.float32)
_ASPHALT = np.array([0.105, 0.10, 0.098], np.float32)
_WHITE = np.array([0.58, 0.60, 0.60], np.float32)
_YELLOW = np.array([0.07, 0.42, 0.55], np.float32)


def ground_labels(layout: Layout, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return ROAD or PAVEMENT, uint8, for ground points ``x``, ``y`` in metres."""
    return np.where(_is_road(layout, x - layout.centre(y), y), ROAD, PAVEMENT).astype(np.uint8)


def _is_road(layout: Layout, lateral: np.ndarray, y: np.ndarray) -> np.ndarray:
    away = np.abs(lateral) - layout.half_width
    road = away < 0
    if np.isfinite(layout.crossing[0]):
        # Rounded corners: the mouth of the crossing road widens by up to 2.5 m towards the kerb
        # line.
        flare = 2.5 - np.sqrt(np.maximum(2.5**2 - np.clip(2.5 - away, 0, 2.5) ** 2, 0))
        road |= (y > layout.crossing[0] - flare) & (y < layout.crossing[1] + flare)
    return road


def _line(distance: np.ndarray, width: float, footprint: np.ndarray) -> np.ndarray:
    """Return how much of each pixel a line covers.

    Args:
        distance: Distance of the pixel from the middle of the line.
        width: Width of the line.
        footprint: Size of the pixel.
    """
    low = np.maximum(distance - footprint / 2, -width / 2)
    high = np.minimum(distance + footprint / 2, width / 2)
    return np.clip((high - low) / footprint, 0, 1)


def _stripes(
    position: np.ndarray, period: float, share: float, footprint: np.ndarray
) -> np.ndarray:
    """Return the coverage of stripes that fill ``share`` of each ``period``.

    Where the stripes are too fine for the pixels, this is their mean.
    """
    phase = np.abs(position / period - np.floor(position / period) - 0.5) * period
    blur = np.clip(footprint / period - 0.3, 0, 1)
    return _line(phase, share * period, footprint) * (1 - blur) + share * blur


def ground_albedo(
    layout: Layout,
    x: np.ndarray,
    y: np.ndarray,
    across: np.ndarray,
    along: np.ndarray,
    fine: np.ndarray,
    coarse: np.ndarray,
    labels: np.ndarray,
) -> np.ndarray:
    """Return the (n, 3) BGR albedo of ground points.

    Args:
        layout: The street.
        x: (n,) metres.
        y: (n,) metres.
        across: (n,) size of the pixel across the street in metres.
        along: (n,) size of the pixel along the street in metres.
        fine: (n,) fine noise around 0.
        coarse: (n,) coarse noise around 0.
        labels: (n,) from :func:`ground_labels`.

    Returns:
        (n, 3) float32.
    """
    lateral = x - layout.centre(y)
    away = np.abs(lateral) - layout.half_width
    worn = 1 + 0.5 * fine + 0.5 * coarse
    wheels = 0.86 + 0.14 * np.clip(
        np.abs(np.abs(np.abs(lateral) - 0.4 * layout.half_width) - 0.75) / 0.5, 0, 1
    )
    road = _ASPHALT * (worn * wheels)[:, None]
    paint, yellow = _markings(layout, lateral, y, across, along)
    paint *= np.clip(0.95 + 0.8 * fine + 0.6 * coarse, 0.25, 1)
    road += (paint - yellow * paint)[:, None] * (_WHITE - road)
    road += (yellow * paint)[:, None] * (_YELLOW - road)
    joints = np.maximum(_stripes(lateral, 0.75, 0.06, across), _stripes(y, 0.75, 0.06, along))
    slab_tone = 0.05 * (((np.floor(lateral / 0.75) * 7 + np.floor(y / 0.75) * 13) % 5) - 2)
    slab_tone *= np.clip(1.5 - along / 0.4, 0, 1)
    pavement = (
        _CONCRETE * ((1 + 0.35 * fine + 0.45 * coarse + slab_tone) * (1 - 0.45 * joints))[:, None]
    )
    kerb = _line(away - 0.14, 0.28, across)
    pavement += (kerb * (1 - 0.2 * np.clip(fine, -1, 1)))[:, None] * (_KERB - pavement)
    gutter = _line(away + 0.08, 0.16, across)
    road *= (1 - 0.45 * gutter)[:, None]
    return np.where((labels == ROAD)[:, None], road, pavement).astype(np.float32)


def _markings(layout: Layout, lateral, y, across, along) -> tuple[np.ndarray, np.ndarray]:
    """Return the coverage by paint, and the share of it that is yellow."""
    in_crossing = (y > layout.crossing[0] - 1.5) & (y < layout.crossing[1] + 1.5)
    paint = _line(lateral, 0.14, across) * _stripes(y, 2.2 * layout.dashes, 0.5, along)
    edges = np.zeros_like(paint)
    for i in range(layout.edge_lines):
        edges = np.maximum(
            edges, _line(np.abs(lateral) - layout.half_width + 0.35 + 0.22 * i, 0.10, across)
        )
    yellow = (edges > paint).astype(np.float32) if layout.edge_yellow else np.zeros_like(paint)
    paint = np.where(in_crossing, 0, np.maximum(paint, edges))
    if np.isfinite(layout.crossing[0]):
        lane = lateral * layout.drive_side > 0
        stop = np.where(
            lane & (np.abs(lateral) < layout.half_width),
            _line(y - layout.crossing[0] + 1.9, 0.35, along),
            0,
        )
        paint, yellow = np.maximum(paint, stop), np.where(stop > 0, 0, yellow)
    if np.isfinite(layout.zebra):
        band = _line(y - layout.zebra - 1.5, 3.0, along)
        paint = np.where(band > 0, band * _stripes(lateral, 1.1, 0.5, across), paint)
        yellow = np.where(band > 0, 0, yellow)
    return paint.astype(np.float32), yellow
