"""Points of accuracy against computational cost, from many trainings."""

from __future__ import annotations

import csv
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmwcc.model_tree import CompressionReport

from .metrics import larger_is_better
from .model_facts import Basis, ModelFacts
from .work_dirs import WorkDir

__all__ = [
    'DENSE',
    'QUANTIZED',
    'TradeoffPoint',
    'WHICH',
    'describe',
    'gather_points',
    'write_tradeoff',
]

DENSE, QUANTIZED = 'dense', 'quantized'
WHICH = ('result', 'last', 'best')
"""Which value of a metric counts: the tested one, else the last of validation; the last; or the
best of validation.
"""


@dataclass(frozen=True)
class TradeoffPoint:
    """All trainings of one config, with one seed or several.

    Attributes:
        config: Name of the config.
        family: How the network is compressed: :data:`DENSE`, :data:`QUANTIZED` or 'WCC' with its
            bits.
        label: What distinguishes the point within its family: bits, or the fraction of coefficients
            kept.
        bops: Bit operations for one image, including those of transforms.
        transform_bops: Bit operations of the transforms alone.
        values: The metric, one value per training.
        work_dirs: The work folders.
        image: Height and width of the image that the cost is counted for.
        pareto: Whether no other point is as cheap and better, or as good and cheaper.
    """

    config: str
    family: str
    label: str
    bops: float
    transform_bops: float
    values: tuple[float, ...]
    work_dirs: tuple[str, ...]
    image: tuple[int, int]
    pareto: bool = False

    @property
    def mean(self) -> float:
        """Mean over trainings."""
        return statistics.mean(self.values)

    @property
    def error(self) -> float | None:
        """Standard error of the mean, None for one training."""
        count = len(self.values)
        return statistics.stdev(self.values) / math.sqrt(count) if count > 1 else None


def describe(layers: CompressionReport) -> tuple[str, str]:
    """Return the family of a network and its label, from the settings that most layers have.

    Args:
        layers: The convolutions of the network.

    Example:
        >>> from mmwcc.model_tree import LayerReport
        >>> layer = LayerReport('a', '', 'WaveletCompressedConv2d', 8, 8, 0.25)
        >>> describe(CompressionReport([layer]))
        ('WCC 8/8', '25 %')
    """
    compressed = [
        layer
        for layer in layers
        if layer.keep_ratio is not None or layer.weight_bits + layer.act_bits < 64
    ]
    if not compressed:
        return DENSE, ''
    wavelet = [layer for layer in compressed if layer.keep_ratio is not None]
    (weight_bits, act_bits), _ = Counter(
        (layer.weight_bits, layer.act_bits) for layer in wavelet or compressed
    ).most_common(1)[0]
    bits = f'{weight_bits}/{act_bits}'
    if not wavelet:
        return QUANTIZED, bits
    ratios = Counter(layer.keep_ratio for layer in wavelet).most_common()
    label = f'{100 * ratios[0][0]:.3g} %'
    return f'WCC {bits}', label if len(ratios) == 1 else f'mostly {label}'


def gather_points(
    work_dirs: Sequence[WorkDir],
    facts: Sequence[ModelFacts],
    metric: str,
    which: str = 'result',
    larger: bool | None = None,
) -> list[TradeoffPoint]:
    """Combine trainings with equal configs into points, and mark those on the Pareto front.

    Args:
        work_dirs: What :func:`mmwcc.reports.work_dirs.read_work_dir` returned.
        facts: What :func:`mmwcc.reports.model_facts.examine_all` returned.
        metric: Name of the metric.
        which: One of :data:`WHICH`. Defaults to 'result'.
        larger: Whether larger values are better. Defaults to None: decided by the name of the
            metric.

    Returns:
        The points, cheapest first. Folders without the metric or the cost are left out.

    Raises:
        ValueError: If which is unknown, it is not known which values are better, or no folder has
            metric and cost.
        ValueError: If costs were counted for images of different sizes, or by different
            conventions.
    """
    if which not in WHICH:
        raise ValueError(
            f"gather_points: which must be one of {', '.join(WHICH)}, got {which!r}. Use 'result' "
            f'for the '
            'tested value.'
        )
    larger = larger_is_better(metric) if larger is None else larger
    if larger is None:
        raise ValueError(
            f'gather_points: it must be known whether larger values of {metric!r} are better, and '
            'its name does not tell. Give `larger`.'
        )
    groups: dict[tuple[str, str, str, float, float], list[tuple[float, str]]] = {}
    counted: dict[Basis, str] = {}
    for work_dir, fact in zip(work_dirs, facts, strict=True):
        value = getattr(work_dir, which)(metric)
        if value is not None and math.isfinite(value) and fact.cost is not None and fact.basis:
            groups.setdefault(_network(work_dir, fact), []).append((value, str(work_dir.path)))
            counted.setdefault(fact.basis, str(work_dir.path))
    if not groups:
        raise ValueError(
            f'gather_points: work folders must have the metric {metric!r} and a cost, got none '
            'with both. Give another metric, or folders whose models can be built.'
        )
    points = []
    for network, runs in groups.items():
        values, folders = zip(*runs, strict=True)
        points.append(TradeoffPoint(*network, values, folders, _only_size(counted)))
    points.sort(key=lambda point: (point.bops, point.mean))
    return [
        replace(point, pareto=not any(_dominates(other, point, larger) for other in points))
        for point in points
    ]


def _network(work_dir: WorkDir, facts: ModelFacts) -> tuple[str, str, str, float, float]:
    """Return what the seeds of one training share: the first five attributes of their point."""
    total = facts.total
    bops, transform_bops = total['total_bops'], total['transform_bops']
    return (work_dir.config_name, *describe(facts.layers), bops, transform_bops)


def _only_size(counted: Mapping[Basis, str]) -> tuple[int, int]:
    """Return the one image size that costs were counted for.

    Args:
        counted: For each basis, a work folder that was counted on it.
    """
    if len(counted) > 1:
        sizes = ', '.join(f'{path} for images of {basis}' for basis, path in counted.items())
        raise ValueError(
            f'gather_points: the costs must be counted for images of one size, got {sizes}. Count '
            'them with examine_all, or give one shape to all.'
        )
    return next(iter(counted)).size


def _dominates(one: TradeoffPoint, other: TradeoffPoint, larger: bool) -> bool:
    gain = one.mean - other.mean if larger else other.mean - one.mean
    return one.bops <= other.bops and gain >= 0 and (one.bops < other.bops or gain > 0)


def write_tradeoff(points: Sequence[TradeoffPoint], metric: str, path: str | Path) -> None:
    """Write a CSV file with one line per point.

    Args:
        points: What :func:`gather_points` returned.
        metric: Name of the metric, which becomes the name of a column.
        path: File to write.
    """
    with Path(path).open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(
            (
                'config',
                'family',
                'label',
                'bops',
                'transform_bops',
                metric,
                'standard_error',
                'runs',
                'image',
                'pareto',
                'work_dirs',
            )
        )
        for point in points:
            error = '' if point.error is None else f'{point.error:.6g}'
            writer.writerow(
                (
                    point.config,
                    point.family,
                    point.label,
                    f'{point.bops:.0f}',
                    f'{point.transform_bops:.0f}',
                    f'{point.mean:.6g}',
                    error,
                    len(point.values),
                    'x'.join(map(str, point.image)),
                    int(point.pareto),
                    ' '.join(point.work_dirs),
                )
            )
