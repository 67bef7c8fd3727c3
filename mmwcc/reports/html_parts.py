"""Parts of an HTML page of results: cells, sortable tables, sections, charts, embedded images."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from .run_logs import Curve

__all__ = [
    'MISSING',
    'Cell',
    'Chart',
    'Series',
    'code',
    'data_uri',
    'charts_json',
    'number',
    'said',
    'section',
    'table',
]

_JPEG_QUALITY = 82


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        html: Its content, already escaped.
        value: The number to sort by, if there is one; NaN if the number is missing.
        share: Length of the bar in its background, 0 to 1.
    """

    html: str
    value: float | None = None
    share: float | None = None

    @classmethod
    def text(cls, text: str) -> Cell:
        """Return a cell with plain text."""
        return cls(escape(text))


MISSING = Cell(
    '<span class="quiet" title="not on record" aria-label="not on record">–</span>', math.nan
)


def number(
    value: float | None, digits: int = 2, note: str = '', share: float | None = None
) -> Cell:
    """Return a cell with a number, and a note in small print below it.

    Example:
        >>> number(1234.5, 1).html
        '1,234.5'
    """
    if value is None or math.isnan(value):
        return MISSING
    small = f'<small>{escape(note)}</small>' if note else ''
    return Cell(f'{value:,.{digits}f}{small}', value, share)


def code(text: str) -> str:
    """Return text as code."""
    return f'<code>{escape(text)}</code>'


def said(text: str) -> str:
    """Return a note that something is missing."""
    return f'<p class="missing">{escape(text)}</p>'


def table(
    caption: str,
    headers: Sequence[str],
    rows: Sequence[tuple[str, Sequence[Cell]]],
    tall: bool = False,
    numeric: Sequence[int] = (),
) -> str:
    """Return a table that can be sorted by every column, within a frame that scrolls on its own.

    Args:
        caption: What the table shows; placed above it and read by screen readers.
        headers: Titles of the columns.
        rows: For each row its attributes, already escaped, and its cells. The first cell names the
            row.
        tall: Whether the frame also scrolls vertically. Defaults to False.
        numeric: Indices of the right-aligned columns. Defaults to none.
    """

    def kind(column: int) -> str:
        return ' class="num"' if column in numeric else ''

    head = ''.join(
        f'<th scope="col" aria-sort="none"{kind(column)}><button '
        f'type="button">{escape(title)}</button></th>'
        for column, title in enumerate(headers)
    )
    lines = []
    for attributes, cells in rows:
        first, *others = cells
        body = ''.join(_cell(cell, column in numeric) for column, cell in enumerate(others, 1))
        lines.append(
            f'<tr{attributes and " " + attributes}><th scope="row">{first.html}</th>{body}</tr>'
        )
    # No caption element: it would scroll away sideways with the table.
    return (
        f'<p class="about">{escape(caption)}</p>\n'
        f'<div class="scroll{" tall" if tall else ""}" role="region" tabindex="0" '
        f'aria-label="{escape(caption)}">\n<table '
        f'aria-label="{escape(caption)}">\n<thead><tr>{head}</tr></thead>\n<tbody>\n'
        + '\n'.join(lines)
        + '\n</tbody></table></div>'
    )


def _cell(cell: Cell, is_number: bool) -> str:
    classes = ['num'] * is_number + ['share'] * (cell.share is not None)
    attributes = f' class="{" ".join(classes)}"' if classes else ''
    if cell.value is not None:
        attributes += f' data-value="{cell.value!r}"'
    if cell.share is not None:
        attributes += f' style="--share:{cell.share:.3f}"'
    return f'<td{attributes}>{cell.html}</td>'


def section(name: str, title: str, *content: str) -> str:
    """Return a section of the page."""
    body = '\n'.join(part for part in content if part)
    return (
        f'<section id="{name}" aria-labelledby="{name}-title">\n<h2 '
        f'id="{name}-title">{escape(title)}</h2>\n{body}\n</section>'
    )


@dataclass(frozen=True)
class Series:
    """The points of one model in a chart.

    Attributes:
        name: What the legend calls it.
        index: The place of the model among all models, which determines its colour and marker.
        points: The points.
        band: The range around each point as (abscissa, low, high). Defaults to none.
        dash: The place among the curves of the same model, which determines its dashes. Defaults
            to 0.
    """

    name: str
    index: int
    points: list[tuple[float, float]]
    band: list[tuple[float, float, float]] = field(default_factory=list)
    dash: int = 0

    @classmethod
    def of(cls, name: str, index: int, curve: Curve) -> Series:
        """Return a curve as a series, without values that are not finite."""
        return cls(
            name,
            index,
            [
                (step, value)
                for step, value in zip(curve.steps, curve.values, strict=True)
                if math.isfinite(value)
            ],
        )


@dataclass(frozen=True)
class Chart:
    """A chart that the browser draws.

    Attributes:
        title: Its title.
        x: Quantity of the horizontal axis.
        y: Quantity of the vertical axis.
        series: One series per model.
        scatter: Whether the chart shows points rather than curves. Defaults to False.
    """

    title: str
    x: str
    y: str
    series: list[Series]
    scatter: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(series.points for series in self.series)

    def html(self, place: int) -> str:
        """Return the figure element for the chart, which is number ``place`` on the page."""
        said = '; '.join(
            f'{series.name}: {series.points[-1][1]:g} at {series.points[-1][0]:g}'
            for series in self.series
            if series.points
        )
        label = f'{self.y} against {self.x}. {"" if self.scatter else "Last values: "}{said}'
        return (
            f'<figure class="chart{" wide" if self.scatter else ""}" '
            f'data-chart="{place}"><h3>{escape(self.title)}</h3><svg role="img" '
            f'aria-label="{escape(label)}"></svg></figure>'
        )

    def data(self) -> dict:
        """Return the data that the script draws from."""
        abscissas = [x for series in self.series for x, _ in series.points]
        # Beyond a factor of eight, small models would lie on top of each other.
        log = self.scatter and min(abscissas) > 0 and max(abscissas) > 8 * min(abscissas)
        return dict(
            x=self.x,
            y=self.y,
            points=self.scatter,
            log=log,
            series=[
                dict(
                    name=series.name,
                    index=series.index,
                    points=series.points,
                    band=series.band,
                    dash=series.dash,
                )
                for series in self.series
                if series.points
            ],
        )


def charts_json(charts: Sequence[Chart]) -> str:
    """Return the data of all charts, escaped for use in a script element."""
    text = json.dumps([chart.data() for chart in charts], allow_nan=False)
    return text.replace('<', '\\u003c').replace('>', '\\u003e').replace('&', '\\u0026')


def data_uri(file: Path, width: int = 480) -> str | None:
    """Return an image as a data URI, at most ``width`` pixels wide.

    The format is PNG or JPEG, whichever is shorter.

    Returns:
        The data URI, or None if the file cannot be read as an image.
    """
    import cv2
    import numpy as np

    try:
        content = np.fromfile(file, np.uint8)
    except OSError:
        return None
    image = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    if image is None:
        return None
    if image.shape[1] > width:
        size = width, max(1, round(image.shape[0] * width / image.shape[1]))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    encoded = {
        kind: cv2.imencode(suffix, image, options)[1].tobytes()
        for kind, suffix, options in (
            ('png', '.png', [cv2.IMWRITE_PNG_COMPRESSION, 9]),
            ('jpeg', '.jpg', [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]),
        )
    }
    kind = min(encoded, key=lambda name: len(encoded[name]))
    return f'data:image/{kind};base64,{base64.b64encode(encoded[kind]).decode()}'
