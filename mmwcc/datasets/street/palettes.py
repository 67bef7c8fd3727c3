"""The colours of the objects of the synthetic street, as albedo in BGR, linear light."""

from __future__ import annotations

import numpy as np

WALLS = (
    (0.10, 0.14, 0.30),
    (0.14, 0.20, 0.36),
    (0.22, 0.30, 0.40),
    (0.40, 0.48, 0.54),
    (0.50, 0.56, 0.60),
    (0.34, 0.36, 0.38),
    (0.30, 0.34, 0.30),
    (0.42, 0.40, 0.34),
    (0.16, 0.18, 0.20),
    (0.30, 0.44, 0.52),
)
ROOFS = ((0.07, 0.08, 0.10), (0.06, 0.09, 0.20), (0.12, 0.12, 0.13), (0.08, 0.10, 0.14))
PAINTS = (
    (0.02, 0.02, 0.02),
    (0.45, 0.45, 0.45),
    (0.65, 0.66, 0.66),
    (0.18, 0.18, 0.18),
    (0.03, 0.03, 0.35),
    (0.32, 0.12, 0.03),
    (0.20, 0.06, 0.02),
    (0.05, 0.20, 0.06),
    (0.06, 0.32, 0.50),
    (0.12, 0.22, 0.26),
)
FABRICS = (
    (0.03, 0.03, 0.04),
    (0.20, 0.06, 0.04),
    (0.05, 0.05, 0.35),
    (0.50, 0.50, 0.52),
    (0.06, 0.22, 0.10),
    (0.05, 0.35, 0.50),
    (0.24, 0.10, 0.20),
    (0.10, 0.12, 0.20),
    (0.36, 0.24, 0.10),
    (0.12, 0.10, 0.09),
)
SKINS = ((0.30, 0.40, 0.60), (0.20, 0.28, 0.46), (0.08, 0.12, 0.24), (0.24, 0.34, 0.52))
METALS = (
    (0.10, 0.11, 0.11),
    (0.26, 0.26, 0.25),
    (0.05, 0.06, 0.05),
    (0.08, 0.12, 0.07),
    (0.36, 0.36, 0.35),
)


def pick(
    rng: np.random.Generator, palette: tuple, spread: float = 0.15
) -> tuple[float, float, float]:
    """Return a colour of a palette, its tone varied by up to ``spread`` and its tint a little."""
    place, tone, *tint = rng.random(5).tolist()
    base = palette[int(place * len(palette))]
    tone = 1 + spread * (2 * tone - 1)
    return tuple(
        b * tone * (1 + 0.25 * spread * (2 * t - 1)) for b, t in zip(base, tint, strict=True)
    )
