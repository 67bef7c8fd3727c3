"""Read what CompressionStatsHook recorded as a few curves: mean and range over groups of layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from mmwcc.diagnostics import MEASURES, parse_scalar

from .run_logs import Curve

__all__ = ['Spread', 'layer_curves']

_UNKNOWN = 'all layers'


@dataclass(frozen=True)
class Spread:
    """A statistic over a group of layers at one step.

    Attributes:
        mean: Mean over the layers.
        low: Minimum over the layers.
        high: Maximum over the layers.
    """

    mean: float
    low: float
    high: float


def layer_curves(
    scalars: Mapping[str, Curve], kinds: Mapping[str, str]
) -> dict[tuple[str, str], dict[str, list[tuple[int, Spread]]]]:
    """Return the statistics of groups of layers.

    Runs that recorded every layer by itself are read too; their layers are grouped by kind.

    Args:
        scalars: What hooks recorded, by name.
        kinds: The class of each compressed layer by name.

    Returns:
        For each prefix and statistic, the spread over each group by ascending step.
    """
    measured: dict[tuple[str, str, str, int], dict[str, list[float]]] = {}
    for scalar, curve in scalars.items():
        name = parse_scalar(scalar)
        if name is None:
            continue
        group: str = name.group
        measures: Sequence[str] = [name.measure] if name.measure else MEASURES
        if name.measure is None:
            group = kinds.get(name.group, _UNKNOWN)
        for step, value in zip(curve.steps, curve.values, strict=True):
            if math.isfinite(value):
                found = measured.setdefault((name.prefix, name.statistic, group, step), {})
                for measure in measures:
                    found.setdefault(measure, []).append(value)
    curves: dict[tuple[str, str], dict[str, list[tuple[int, Spread]]]] = {}
    for (prefix, statistic, group, step), found in sorted(measured.items()):
        if 'mean' in found:
            mean = fmean(found['mean'])
            spread = Spread(mean, min(found.get('min', [mean])), max(found.get('max', [mean])))
            curves.setdefault((prefix, statistic), {}).setdefault(group, []).append((step, spread))
    return curves
