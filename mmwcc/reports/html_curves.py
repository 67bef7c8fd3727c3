"""The charts on a page of results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mmwcc.diagnostics import TRAINING_PREFIX, VALIDATION_PREFIX

from .html_entry import Entry
from .html_parts import Chart, Series
from .layer_curves import layer_curves

__all__ = [
    'curve_charts',
    'curve_figures',
    'layer_charts',
    'layer_figures',
    'trade_off_chart',
]

_STATISTICS = dict(
    energy_kept='Energy kept by the selection',
    act_sqnr='Activations: signal to quantization noise, dB',
    act_clipped='Activations: fraction clipped',
    act_clip_alpha='Activations: clip',
    weight_sqnr='Weights: signal to quantization noise, dB',
    weight_clipped='Weights: fraction clipped',
    weight_clip_alpha='Weights: clip',
)
_PHASES = {TRAINING_PREFIX: 'training', VALIDATION_PREFIX: 'validation'}


def trade_off_chart(entries: Sequence[Entry], metric: str | None) -> Chart:
    """Return the chart of accuracy against bit operations, for the models that have both."""
    points = [
        (entry, entry.facts.total['total_bops'] / 1e9, entry.work_dir.result(metric))
        for entry in entries
        if entry.facts.total and metric is not None
    ]
    return Chart(
        f'{metric} against bit operations',
        'G BOPs',
        metric or '',
        [
            Series(entry.name, entry.index, [(bops, result)])
            for entry, bops, result in points
            if result is not None and math.isfinite(result)
        ],
        scatter=True,
    )


def curve_charts(entries: Sequence[Entry], metric: str | None) -> list[Chart]:
    """Return a chart for every quantity of a training that is worth plotting.

    Models that count in epochs and models that count in iterations get separate charts.
    """
    wanted = [(f'Validation: {metric}', metric, 'metrics')] if metric else []
    wanted += [('Training loss', 'loss', 'losses'), ('Learning rate', 'lr', 'losses')]
    scheduled = sorted(
        {
            name
            for entry in entries
            for name in entry.work_dir.losses
            if name.startswith('compression/')
        }
    )
    wanted += [(f'Schedule: {name.partition("/")[2]}', name, 'losses') for name in scheduled]
    charts = []
    for title, name, where in wanted:
        curves = [
            (entry, getattr(entry.work_dir, where)[name])
            for entry in entries
            if name in getattr(entry.work_dir, where)
        ]
        for unit in sorted({curve.unit for _, curve in curves}):
            series = [
                Series.of(entry.name, entry.index, curve)
                for entry, curve in curves
                if curve.unit == unit
            ]
            charts.append(Chart(title, unit, name, series))
    return charts


def layer_charts(entries: Sequence[Entry]) -> list[Chart]:
    """Return a chart for every statistic that CompressionStatsHook recorded.

    Each group of layers has a curve for its mean, within a band from its minimum to its maximum.
    """
    recorded = {
        entry.index: layer_curves(entry.work_dir.scalars, _kinds(entry)) for entry in entries
    }
    charts = []
    for prefix, phase in _PHASES.items():
        for statistic, title in _STATISTICS.items():
            series = [
                Series(
                    f'{entry.name}: {group}',
                    entry.index,
                    [(step, spread.mean) for step, spread in spreads],
                    [(step, spread.low, spread.high) for step, spread in spreads],
                    place,
                )
                for entry in entries
                for place, (group, spreads) in enumerate(
                    recorded[entry.index].get((prefix, statistic), {}).items()
                )
            ]
            charts.append(Chart(f'{title} ({phase})', 'iteration', statistic, series))
    return charts


def _kinds(entry: Entry) -> Mapping[str, str]:
    """Return the class of each compressed layer by name."""
    return {layer.name: layer.after for layer in entry.facts.layers}


def curve_figures(curves: Sequence[Chart], figures: Mapping[int, str]) -> str:
    """Return the figures of some charts, or nothing if all charts are empty.

    Args:
        curves: The charts.
        figures: The figures of charts that are not empty, by the id of their charts.
    """
    drawn = [figures[id(chart)] for chart in curves if id(chart) in figures]
    return f'<div class="charts">{"".join(drawn)}</div>' if drawn else ''


def layer_figures(charts: Sequence[Chart], figures: Mapping[int, str]) -> str:
    """Return the figures of statistics of layers with an explanation, or nothing without any."""
    drawn = curve_figures(charts, figures)
    about = 'Each curve is the mean over a group of layers; the band around it is their range.'
    return f'<p class="about">{about}</p>\n{drawn}' if drawn else ''
