"""The images on a page of results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from .html_entry import Entry
from .html_parts import data_uri, said

__all__ = ['figures_part', 'predictions_part']

_PREDICTION_WIDTH = 480
# The figures of hooks have several panels and text.
_FIGURE_WIDTH = 1100


def predictions_part(entries: Sequence[Entry], count: int) -> str:
    """Return images with predictions side by side, starting with those that most models have.

    Args:
        entries: The models.
        count: Largest number of images of each model.
    """
    if not count:
        return said('None were asked for.')
    images = [(entry, entry.work_dir.images.predictions) for entry in entries]
    return _side_by_side(images, count, _PREDICTION_WIDTH, 'images') or said(
        'No predictions are on record. Test with --show-dir inside of the work folder to draw them.'
    )


def figures_part(entries: Sequence[Entry], count: int) -> str:
    """Return the figures that hooks gave to the visualizer, or nothing if there are none.

    Args:
        entries: The models.
        count: Largest number of figures of each model.
    """
    images = [(entry, entry.work_dir.images.figures) for entry in entries]
    images = [(entry, files) for entry, files in images if files]
    return _side_by_side(images, count, _FIGURE_WIDTH, 'images wide')


def _side_by_side(
    images: Sequence[tuple[Entry, Mapping[str, Path]]], count: int, width: int, style: str
) -> str:
    counts = Counter(name for _, files in images for name in files)
    chosen = sorted(counts, key=lambda name: (-counts[name], name))[:count]
    return '\n'.join(
        f'<div class="{style}"><h3>{escape(name)}</h3><div>'
        + ''.join(_figure(entry, name, files.get(name), width) for entry, files in images)
        + '</div></div>'
        for name in chosen
    )


def _figure(entry: Entry, name: str, file: Path | None, width: int) -> str:
    uri = data_uri(file, width) if file else None
    if uri is None:
        state = 'could not be read' if file else 'not drawn'
        return f'<figure><figcaption>{entry.label}: {state}</figcaption></figure>'
    text = f'{escape(name)} by {escape(entry.name)}'
    return f'<figure><img src="{uri}" alt="{text}"><figcaption>{entry.label}</figcaption></figure>'
