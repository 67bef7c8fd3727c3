"""Present the results of a ladder: a table, and a plot of accuracy against bit operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmwcc.reports import (
    TradeoffPoint,
    common_metric,
    examine_all,
    gather_points,
    plot_tradeoff,
    read_work_dir,
    write_tradeoff,
)

from .plan import Ladder

__all__ = ['draw_ladder', 'ladder_table']


def draw_ladder(
    ladder: Ladder,
    folder: Path,
    records: Mapping[str, Mapping[str, Any]],
    metric: str | None = None,
    shape: Sequence[int] | None = None,
) -> str:
    """Write tradeoff.png and tradeoff.csv of all finished points.

    Args:
        ladder: The ladder.
        folder: Folder of the work folders. Both files are written there.
        records: What :meth:`LadderRun.records` returned.
        metric: Name of the metric. Defaults to None: the one that papers print first.
        shape: (height, width) of the image for which bit operations are counted. Defaults to None:
            that of the first finished point, for all points.

    Returns:
        The table of :func:`ladder_table`, and a line for each point whose cost is not known.

    Raises:
        ValueError: If no point is finished, or none has the metric.
    """
    if not records:
        raise ValueError(
            f'ladder: {folder} must hold a finished point, got none. Run the ladder first.'
        )
    work_dirs = [read_work_dir(folder / name) for name in records]
    metric = common_metric(work_dirs, metric)
    if metric is None:
        raise ValueError(
            f'ladder: the finished points in {folder} must have a metric, got none. Test them '
            'first.'
        )
    facts = examine_all(work_dirs, shape)
    points = gather_points(work_dirs, facts, metric)
    points = [
        replace(point, family=ladder.points[point.config].series or point.family)
        for point in points
    ]
    write_tradeoff(points, metric, folder / 'tradeoff.csv')
    plot_tradeoff(points, metric, folder / 'tradeoff.png', ladder.path.stem)
    minutes = {str(folder / name): record['minutes'] for name, record in records.items()}
    left_out = [
        f'\n{work_dir.name} was left out: {" ".join(fact.notes)}'
        for work_dir, fact in zip(work_dirs, facts, strict=True)
        if fact.cost is None
    ]
    return '\n'.join([ladder_table(points, metric, minutes), *left_out])


def ladder_table(points: list[TradeoffPoint], metric: str, minutes: Mapping[str, float]) -> str:
    """Return a Markdown table, cheapest point first.

    Args:
        points: What :func:`mmwcc.reports.tradeoff.gather_points` returned.
        metric: Name of the metric.
        minutes: Time that each work folder took, without the time that an interrupted process had
            spent.
    """
    height, width = points[0].image
    lines = [
        f'| point | network | | G BOPs, {height}x{width} | {metric} | runs | minutes | Pareto '
        f'front |',
        '|---' * 8 + '|',
    ]
    for point in points:
        error = '' if point.error is None else f' ± {point.error:.2g}'
        lines.append(
            f'| {point.config} | {point.family} | {point.label} | {point.bops / 1e9:,.4g} | '
            f'{point.mean:.4g}{error} | {len(point.values)} | '
            f'{sum(minutes[folder] for folder in point.work_dirs):.0f} | '
            f'{"yes" if point.pareto else ""} |'
        )
    return '\n'.join(lines)
