"""Titles that fit into their figure."""

from __future__ import annotations

import re

__all__ = ['fit_titles']

# Names of configs and layers have no spaces, so lines also end at what separates their parts.
_PIECE = re.compile(r'[^\s_/.,-]*[\s_/.,-]*')
_MOST_LINES = 4
_MARGIN = 8


def fit_titles(figure) -> None:
    """Break the titles of a figure and of its axes into lines that are not cut off.

    Titles are texts that a user or a config supplies, so a dollar sign stays a dollar sign. Titles
    of more than four lines end with an ellipsis.

    Args:
        figure: A matplotlib figure that is complete, with matplotlib's constrained layout.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if not hasattr(figure.canvas, 'get_renderer'):
        FigureCanvasAgg(figure)
    for axes in figure.axes:
        axes.title.set_parse_math(False)
    suptitle = figure._suptitle  # there is no public way to the text
    if suptitle is not None:
        suptitle.set_parse_math(False)
        _fit(suptitle, figure.bbox.width - 2 * _MARGIN)
    figure.draw_without_rendering()  # decides where the axes are
    for axes in figure.axes:
        _fit(axes.title, _room(axes))


def _room(axes) -> float:
    """Return the width in pixels for a title centred on its axes, beside the titles of others."""
    box = axes.get_position()
    center = (box.x0 + box.x1) / 2
    reach = min(center, 1 - center)
    for other in axes.figure.axes:
        beside = other.get_position()
        if other.get_title() and beside.y0 < box.y1 and box.y0 < beside.y1:
            distance = abs((beside.x0 + beside.x1) / 2 - center)
            reach = min(reach, distance / 2) if distance else reach
    return 2 * reach * axes.figure.bbox.width - 2 * _MARGIN


def _fit(text, width: float) -> None:
    lines = [part for line in text.get_text().split('\n') for part in _broken(text, line, width)]
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES - 1], f'{lines[_MOST_LINES - 1][:-1]}…']
    text.set_text('\n'.join(lines))


def _broken(text, line: str, width: float) -> list[str]:
    """Break a line into parts of at most a width in pixels, within a word only if it is too long."""
    if _width(text, line) <= width:
        return [line]
    lines = ['']
    for piece in _PIECE.findall(line):
        if _width(text, lines[-1] + piece.rstrip()) > width and lines[-1]:
            lines.append('')
        for character in piece:
            if _width(text, lines[-1] + character) > width and lines[-1]:
                lines.append('')
            lines[-1] += character
    return [part.rstrip() for part in lines]


def _width(text, content: str) -> float:
    """Return the width in pixels of some content in the font of a text."""
    text.set_text(content.rstrip())
    return text.get_window_extent().width
