"""Compare trained models on one HTML page: accuracy, cost and differences.

The page can be read without a network connection.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from mmwcc.version import __version__

from .html_parts import charts_json, section
from .html_sections import (
    Entry,
    curve_charts,
    curve_figures,
    layers_part,
    notes_part,
    overview_part,
    predictions_part,
    said,
    settings_part,
    trade_off_chart,
)
from .model_facts import examine
from .work_dirs import WorkDir, common_metric, larger_is_better

__all__ = ['make_entries', 'render_report', 'short_names', 'write_report']

_FOLDER = Path(__file__).parent


def write_report(
    work_dirs: Sequence[WorkDir],
    out: str | Path,
    *,
    title: str = 'Models compared',
    metric: str | None = None,
    shape: Sequence[int] | None = None,
    pictures: int = 6,
) -> None:
    """Write a page that compares work folders.

    Args:
        work_dirs: What :func:`mmwcc.reports.work_dirs.read_work_dir` returned. The others are
            compared with the first.
        out: The HTML file.
        title: Title of the page. Defaults to 'Models compared'.
        metric: The accuracy. Defaults to None, see :func:`mmwcc.reports.work_dirs.common_metric`.
        shape: (height, width) for which the cost is counted. Defaults to None: the size of the test
            images of each config.
        pictures: Largest number of example images to embed for each model. Defaults to 6.

    Raises:
        ValueError: If there are no work folders, no folder has the metric, or pictures is negative.
    """
    if not work_dirs:
        raise ValueError(
            'write_report: work_dirs must name at least one work folder, got none. Name those to compare, '
            'the uncompressed one first.'
        )
    if pictures < 0:
        raise ValueError(
            f'write_report: pictures must not be negative, got {pictures}. Use 0 to embed none.'
        )
    metric = common_metric(list(work_dirs), metric)
    page = render_report(make_entries(work_dirs, shape), title, metric, pictures)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(page, encoding='utf-8')


def make_entries(work_dirs: Sequence[WorkDir], shape: Sequence[int] | None = None) -> list[Entry]:
    """Name and examine the models in work folders."""
    names = short_names([work_dir.path for work_dir in work_dirs])
    return [
        Entry(name, index, work_dir, examine(work_dir, shape))
        for index, (name, work_dir) in enumerate(zip(names, work_dirs, strict=True))
    ]


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return distinct names for folders, without the parts that all of them have in common.

    Example:
        >>> short_names([Path('deeplab_dense_400i_camvid'), Path('deeplab_quant-w8a8_400i_camvid')])
        ['dense', 'quant-w8a8']
    """
    paths = [path.resolve() for path in paths]
    names = [path.name for path in paths]
    if len(set(names)) < len(names) and len(set(paths)) > 1:
        names = [str(path.relative_to(os.path.commonpath(paths))) for path in paths]
    parts = [name.split('_') for name in names]
    front = len(os.path.commonprefix(parts))
    back = len(os.path.commonprefix([part[: front - 1 if front else None : -1] for part in parts]))
    short = ['_'.join(part[front : len(part) - back]) for part in parts]
    names = short if all(short) and len(set(short)) == len(short) else names
    return [
        f'{name} ({place})' if names.count(name) > 1 else name
        for place, name in enumerate(names, 1)
    ]


def render_report(
    entries: Sequence[Entry], title: str, metric: str | None, pictures: int = 6
) -> str:
    """Return the page as text."""
    trade_off = trade_off_chart(entries, metric)
    curves = curve_charts(entries, metric)
    charts = [chart for chart in [trade_off, *curves] if not chart.is_empty]
    figures = {id(chart): chart.html(place) for place, chart in enumerate(charts)}
    sections = {
        'overview': ('Overview', overview_part(entries, metric)),
        'trade-off': (
            'Accuracy against cost',
            figures.get(id(trade_off))
            or said('No model has both an accuracy and a cost on record.'),
        ),
        'curves': ('Training', curve_figures(curves, figures)),
        'predictions': ('Example predictions', predictions_part(entries, pictures)),
        'layers': ('Layers', layers_part(entries)),
        'settings': ('Settings', settings_part(entries)),
        'notes': ('Notes', notes_part(entries, metric)),
    }
    better = {True: ', larger is better', False: ', smaller is better', None: ''}[
        larger_is_better(metric or '')
    ]
    lede = (
        f'{len(entries)} {"model" if len(entries) == 1 else "models"}, by {escape(metric)}{better}.'
        if metric
        else f'{len(entries)} {"model" if len(entries) == 1 else "models"}; none has a result on record.'
    )
    fill = dict(
        title=escape(title),
        lede=lede,
        charts=charts_json(charts),
        navigation='\n'.join(
            f'<li><a href="#{name}">{text}</a></li>' for name, (text, _) in sections.items()
        ),
        sections='\n'.join(
            section(name, text, content) for name, (text, content) in sections.items()
        ),
        footer=f'Written by mmwcc {__version__} on {datetime.date.today():%Y-%m-%d}.',
        style=(_FOLDER / 'report.css').read_text(encoding='utf-8').strip(),
        script=(_FOLDER / 'report.js').read_text(encoding='utf-8').strip(),
    )
    return Template((_FOLDER / 'report.html').read_text(encoding='utf-8')).substitute(fill)
