"""Compare accuracy with computational cost over many trainings."""

from __future__ import annotations

import csv
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

from mmwcc.model_tree import CompressionReport

from .model_facts import ModelFacts
from .work_dirs import WorkDir, larger_is_better

__all__ = [
    'DENSE',
    'QUANTIZED',
    'TradeoffPoint',
    'WHICH',
    'describe',
    'gather_points',
    'plot_tradeoff',
    'write_tradeoff',
]

DENSE, QUANTIZED = 'dense', 'quantized'
WHICH = ('result', 'last', 'best')
"""Which value of a metric counts: the tested one, else the last of validation; the last; or the best of validation."""


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
        pareto: Whether no other point is as cheap and better, or as good and cheaper.
    """

    config: str
    family: str
    label: str
    bops: float
    transform_bops: float
    values: tuple[float, ...]
    work_dirs: tuple[str, ...]
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
        >>> describe(CompressionReport([LayerReport('a', '', 'WaveletCompressedConv2d', 8, 8, 0.25)]))
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
        facts: What :func:`mmwcc.reports.model_facts.examine` returned for each, at one input size.
        metric: Name of the metric.
        which: One of :data:`WHICH`. Defaults to 'result'.
        larger: Whether larger values are better. Defaults to None: decided by the name of the
            metric.

    Returns:
        The points, cheapest first. Folders without the metric or the cost are left out.

    Raises:
        ValueError: If which is unknown, it is not known which values are better, or no folder has
            metric and cost.
    """
    if which not in WHICH:
        raise ValueError(
            f"gather_points: which must be one of {', '.join(WHICH)}, got {which!r}. Use 'result' for the "
            'tested value.'
        )
    larger = larger_is_better(metric) if larger is None else larger
    if larger is None:
        raise ValueError(
            f'gather_points: it must be known whether larger values of {metric!r} are better, and its '
            'name does not tell. Give `larger`.'
        )
    groups: dict[tuple, list[tuple[float, str]]] = {}
    for work_dir, fact in zip(work_dirs, facts, strict=True):
        value = getattr(work_dir, which)(metric)
        if value is not None and math.isfinite(value) and fact.cost is not None:
            total = fact.cost.total
            key = (
                work_dir.config_name,
                *describe(fact.layers),
                total.total_bops,
                total.transform_bops,
            )
            groups.setdefault(key, []).append((value, str(work_dir.path)))
    if not groups:
        raise ValueError(
            f'gather_points: work folders must have the metric {metric!r} and a cost, got none with both. '
            'Give another metric, or folders whose models can be built.'
        )
    points = [TradeoffPoint(*key, *zip(*runs, strict=True)) for key, runs in groups.items()]
    points.sort(key=lambda point: (point.bops, point.mean))
    return [
        replace(point, pareto=not any(_dominates(other, point, larger) for other in points))
        for point in points
    ]


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
                    int(point.pareto),
                    ' '.join(point.work_dirs),
                )
            )


_MARKERS = 'oDv^P*<>'
_COLORS = (
    'tab:blue',
    'tab:purple',
    'tab:green',
    'tab:red',
    'tab:brown',
    'tab:cyan',
    'tab:pink',
    'tab:olive',
)
# A dense network that costs more than this many times what the others do is drawn as a line, not a
# point.
_APART = 2


def plot_tradeoff(
    points: Sequence[TradeoffPoint], metric: str, path: str | Path, title: str = ''
) -> None:
    """Plot the metric against bit operations, with error bars and the Pareto front.

    Each family has its own colour and marker. A dense network that costs more than twice as much as
    any other is drawn as a horizontal line, so that the others remain visible.

    Args:
        points: What :func:`gather_points` returned.
        metric: Name of the metric.
        path: PNG to write.
        title: The network and the dataset. Defaults to ''.

    Reference:
        Finder et al., NeurIPS 2022, figure 4.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 5), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    costs = [point.bops for point in points if point.family != DENSE]
    apart = [
        point
        for point in points
        if point.family == DENSE and costs and point.bops > _APART * max(costs)
    ]
    for point in apart:
        axes.axhline(
            point.mean,
            color='black',
            linestyle=':',
            label=f'{DENSE}, {point.bops / 1e9:,.0f} G BOPs',
        )
    points = [point for point in points if point not in apart]
    front = [point for point in points if point.pareto]
    axes.plot(
        [point.bops / 1e9 for point in front],
        [point.mean for point in front],
        color='gray',
        linewidth=6,
        alpha=0.25,
        solid_capstyle='round',
        label='Pareto front',
        zorder=1,
    )
    families = sorted(
        {point.family for point in points}, key=lambda name: (name.startswith('WCC'), name)
    )
    looks = dict(
        zip(
            [name for name in families if name not in (DENSE, QUANTIZED)],
            cycle(zip(_COLORS * 2, _MARKERS + _MARKERS[::-1], strict=True)),
            strict=False,
        )
    )
    looks |= {DENSE: ('black', 's'), QUANTIZED: ('tab:orange', 'X')}
    for family in families:
        color, marker = looks[family]
        own = [point for point in points if point.family == family]
        axes.errorbar(
            [point.bops / 1e9 for point in own],
            [point.mean for point in own],
            yerr=[point.error or math.nan for point in own],
            capsize=3,
            color=color,
            marker=marker,
            markersize=7,
            linewidth=1,
            linestyle='none' if family == DENSE else '--',
            label=family,
            zorder=2,
        )
        for point in own:
            axes.annotate(
                point.label,
                (point.bops / 1e9, point.mean),
                (8, -9),
                textcoords='offset points',
                fontsize=8,
                color=color,
                bbox=dict(boxstyle='square,pad=0.1', color='white', alpha=0.7),
            )
    axes.set(
        xscale='log',
        xlabel='G BOPs for one image, with transforms',
        ylabel=_axis(points, metric),
        title=title,
    )
    for ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        ticks('{x:g}')
    axes.grid(alpha=0.3, which='both')
    axes.margins(0.08)
    axes.legend(fontsize=9)
    figure.savefig(path, dpi=110)


def _axis(points: Sequence[TradeoffPoint], metric: str) -> str:
    """Return the label of the metric's axis, which explains the error bars if there are any."""
    return (
        f'{metric}, mean and standard error'
        if any(point.error is not None for point in points)
        else metric
    )
