"""Titles and labels that fit into their figure."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ['fit_titles']

# Names of configs and layers have no spaces, so lines also end at what separates their parts.
_PIECE = re.compile(r'[^\s_/.,-]*[\s_/.,-]*')
_MOST_LINES = 4
_MARGIN = 8


def fit_titles(figure) -> None:
    """Break titles and the labels of vertical axes into lines that are not cut off.

    They are texts that a user or a config supplies, so a dollar sign stays a dollar sign. Texts of
    more than four lines end with an ellipsis.

    Args:
        figure: A matplotlib figure that is complete, with constrained layout.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if not hasattr(figure.canvas, 'get_renderer'):
        FigureCanvasAgg(figure)
    suptitle = figure._suptitle  # there is no public way to the text
    labels = [text for axes in figure.axes for text in (axes.title, axes.yaxis.label)]
    for text in (*labels, *([suptitle] if suptitle else [])):
        text.set_parse_math(False)
    if suptitle:
        _fit(suptitle, figure.bbox.width - 2 * _MARGIN)
    figure.draw_without_rendering()  # decides where the axes are
    for axes in figure.axes:
        titled = [other for other in figure.axes if other.get_title()]
        labelled = [other for other in figure.axes if other.get_ylabel()]
        _fit(axes.title, 2 * _reach(axes, titled, 0) * figure.bbox.width - 2 * _MARGIN)
        _fit(axes.yaxis.label, 2 * _reach(axes, labelled, 1) * figure.bbox.height - 2 * _MARGIN)


def _reach(axes, others: Sequence, direction: int) -> float:
    """Return how far a text that is centred on its axes may reach to either side.

    Args:
        axes: The axes.
        others: All axes with such a text. Between two texts, each has half of the space.
        direction: 0 if the text runs from left to right, 1 if it runs upwards.

    Returns:
        A fraction of the size of the figure.
    """
    _, across = _spans(axes, direction)
    center = _center(axes, direction)
    reach = min(center, 1 - center)
    for other in others:
        _, beside = _spans(other, direction)
        distance = abs(_center(other, direction) - center)
        if distance and beside[0] < across[1] and across[0] < beside[1]:
            reach = min(reach, distance / 2)
    return reach


def _spans(axes, direction: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the ranges that axes cover along a direction and across it."""
    box = axes.get_position()
    spans = ((box.x0, box.x1), (box.y0, box.y1))
    return spans[direction], spans[1 - direction]


def _center(axes, direction: int) -> float:
    low, high = _spans(axes, direction)[0]
    return (low + high) / 2


def _fit(text, length: float) -> None:
    lines = [part for line in text.get_text().split('\n') for part in _broken(text, line, length)]
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES - 1], f'{lines[_MOST_LINES - 1][:-1]}…']
    text.set_text('\n'.join(lines))


def _broken(text, line: str, length: float) -> list[str]:
    """Break a line into parts of at most a length in pixels, within a word only if it is too
    long.
    """
    if _length(text, line) <= length:
        return [line]
    lines = ['']
    for piece in _PIECE.findall(line):
        if _length(text, lines[-1] + piece) > length and lines[-1]:
            lines.append('')
        for character in piece:
            if _length(text, lines[-1] + character) > length and lines[-1]:
                lines.append('')
            lines[-1] += character
    return [part.rstrip() for part in lines]


def _length(text, content: str) -> float:
    """Return the length in pixels of some content in the font of a text, which may run upwards."""
    text.set_text(content.rstrip())
    extent = text.get_window_extent()
    return extent.height if text.get_rotation() == 90 else extent.width
