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

from .html_curves import (
    curve_charts,
    curve_figures,
    layer_charts,
    layer_figures,
    trade_off_chart,
)
from .html_entry import Entry
from .html_images import figures_part, predictions_part
from .html_layers import layers_part
from .html_notes import notes_part
from .html_overview import overview_part
from .html_parts import Chart, charts_json, said, section
from .html_settings import settings_part
from .metrics import common_metric, larger_is_better
from .model_facts import examine_all
from .work_dirs import WorkDir

__all__ = ['make_entries', 'render_report', 'short_names', 'write_report']

_FOLDER = Path(__file__).parent


def write_report(
    work_dirs: Sequence[WorkDir],
    out: str | Path,
    *,
    title: str = 'Models compared',
    metric: str | None = None,
    shape: Sequence[int] | None = None,
    images: int = 6,
    remarks: Sequence[str] = (),
    verbose: bool = False,
) -> None:
    """Write a page that compares work folders.

    Args:
        work_dirs: What :func:`mmwcc.reports.work_dirs.read_work_dir` returned. The others are
            compared with the first.
        out: The HTML file.
        title: Title of the page. Defaults to 'Models compared'.
        metric: The accuracy. Defaults to None, see :func:`mmwcc.reports.metrics.common_metric`.
        shape: (height, width) for which the cost of all models is counted. Defaults to None, see
            :func:`mmwcc.reports.model_facts.examine_all`.
        images: Largest number of example images to embed for each model. Defaults to 6.
        remarks: Sentences to add to the notes. Defaults to none.
        verbose: Whether to say on stderr how far the page is. Defaults to False.

    Raises:
        ValueError: If there are no work folders, no folder has the metric, or images is negative.
    """
    if not work_dirs:
        raise ValueError(
            'write_report: work_dirs must name at least one work folder, got none. Name those to '
            'compare, the uncompressed one first.'
        )
    if images < 0:
        raise ValueError(
            f'write_report: images must not be negative, got {images}. Use 0 to embed none.'
        )
    metric = common_metric(list(work_dirs), metric)
    entries = make_entries(work_dirs, shape, verbose=verbose)
    page = render_report(entries, title, metric, images, remarks)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(page, encoding='utf-8')


def make_entries(
    work_dirs: Sequence[WorkDir], shape: Sequence[int] | None = None, *, verbose: bool = False
) -> list[Entry]:
    """Name and examine the models in work folders."""
    names = short_names([work_dir.path for work_dir in work_dirs])
    return [
        Entry(name, index, work_dir, facts)
        for index, (name, work_dir, facts) in enumerate(
            zip(names, work_dirs, examine_all(work_dirs, shape, verbose=verbose), strict=True)
        )
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
    entries: Sequence[Entry],
    title: str,
    metric: str | None,
    images: int = 6,
    remarks: Sequence[str] = (),
) -> str:
    """Return the page as text; see :func:`write_report`."""
    sections, charts = _sections(entries, metric, images, remarks)
    fill = dict(
        title=escape(title),
        lede=_lede(len(entries), metric),
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


def _sections(
    entries: Sequence[Entry], metric: str | None, images: int, remarks: Sequence[str]
) -> tuple[dict[str, tuple[str, str]], list[Chart]]:
    """Return title and content of each section by its id, and the charts that they hold."""
    trade_off = trade_off_chart(entries, metric)
    curves, statistics = curve_charts(entries, metric), layer_charts(entries)
    charts = [chart for chart in [trade_off, *curves, *statistics] if not chart.is_empty]
    figures = {id(chart): chart.html(place) for place, chart in enumerate(charts)}
    no_point = said('No model has both an accuracy and a cost on record.')
    sections = {
        'overview': ('Overview', overview_part(entries, metric)),
        'trade-off': ('Accuracy against cost', figures.get(id(trade_off)) or no_point),
        'curves': ('Training', curve_figures(curves, figures) or said('No training is on record.')),
        'statistics': ('Compression of the layers', layer_figures(statistics, figures)),
        'predictions': ('Example predictions', predictions_part(entries, images)),
        'figures': ('Figures', figures_part(entries, images)),
        'layers': ('Layers', layers_part(entries)),
        'settings': ('Settings', settings_part(entries)),
        'notes': ('Notes', notes_part(entries, metric, remarks)),
    }
    return {name: parts for name, parts in sections.items() if parts[1]}, charts


def _lede(count: int, metric: str | None) -> str:
    """Return the line below the title, escaped."""
    models = f'{count} {"model" if count == 1 else "models"}'
    if metric is None:
        return f'{models}; none has a result on record.'
    better = {True: ', larger is better', False: ', smaller is better', None: ''}
    return f'{models}, by {escape(metric)}{better[larger_is_better(metric)]}.'
