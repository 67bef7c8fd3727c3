"""Plot accuracy against computational cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from mmwcc.diagnostics import fit_titles

from .tradeoff import DENSE, QUANTIZED, TradeoffPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ['plot_tradeoff']

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
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 5), layout='constrained')
    axes = figure.subplots()
    costs = [point.bops for point in points if point.family != DENSE]
    apart = [
        point
        for point in points
        if point.family == DENSE and costs and point.bops > _APART * max(costs)
    ]
    for point in apart:
        label = f'{DENSE}, {point.bops / 1e9:,.0f} G BOPs'
        axes.axhline(point.mean, color='black', linestyle=':', label=label)
    near = [point for point in points if point not in apart]
    _draw_front(axes, [point for point in near if point.pareto])
    for family, (color, marker) in _looks(near).items():
        _draw_family(axes, [point for point in near if point.family == family], color, marker)
    height, width = points[0].image
    axes.set(
        xscale='log',
        xlabel=f'G BOPs for one image of {height}x{width}, with transforms',
        ylabel=_axis(points, metric),
        title=title,
    )
    for ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        ticks('{x:g}')
    axes.grid(alpha=0.3, which='both')
    axes.margins(0.08)
    axes.legend(fontsize=9)
    fit_titles(figure)
    figure.savefig(path, dpi=110)


def _looks(points: Sequence[TradeoffPoint]) -> dict[str, tuple[str, str]]:
    """Return the colour and marker of each family, in the order in which they are drawn."""
    fixed = {DENSE: ('black', 's'), QUANTIZED: ('tab:orange', 'X')}
    others = cycle(zip(_COLORS * 2, _MARKERS + _MARKERS[::-1], strict=True))
    families = sorted(
        {point.family for point in points}, key=lambda name: (name.startswith('WCC'), name)
    )
    return {family: fixed.get(family) or next(others) for family in families}


def _draw_front(axes: Axes, front: Sequence[TradeoffPoint]) -> None:
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


def _draw_family(axes: Axes, points: Sequence[TradeoffPoint], color: str, marker: str) -> None:
    family = points[0].family
    axes.errorbar(
        [point.bops / 1e9 for point in points],
        [point.mean for point in points],
        yerr=[point.error or math.nan for point in points],
        capsize=3,
        color=color,
        marker=marker,
        markersize=7,
        linewidth=1,
        linestyle='none' if family == DENSE else '--',
        label=family,
        zorder=2,
    )
    for point in points:
        axes.annotate(
            point.label,
            (point.bops / 1e9, point.mean),
            (8, -9),
            textcoords='offset points',
            fontsize=8,
            color=color,
            bbox=dict(boxstyle='square,pad=0.1', color='white', alpha=0.7),
        )


def _axis(points: Sequence[TradeoffPoint], metric: str) -> str:
    """Return the label of the metric's axis, which explains the error bars if there are any."""
    repeated = any(point.error is not None for point in points)
    return f'{metric}, mean and standard error' if repeated else metric
