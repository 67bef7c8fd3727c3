"""A model on a page of results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .model_facts import ModelFacts
from .run_files import Latency
from .work_dirs import WorkDir

__all__ = ['Entry', 'latency_shape']


@dataclass
class Entry:
    """One model on the page.

    Attributes:
        name: Its unique name on the page.
        index: Its place, which determines its colour.
        work_dir: The contents of its work folder.
        facts: The facts that its config determines.
    """

    name: str
    index: int
    work_dir: WorkDir
    facts: ModelFacts

    @property
    def label(self) -> str:
        """The name, escaped, with the colour in front."""
        color = f'--series:var(--s{self.index % 8})'
        return f'<span class="swatch" style="{color}"></span>{escape(self.name)}'

    def latency(self, shape: tuple[int, ...] | None) -> Latency | None:
        """Return the measurement for an input shape, otherwise the first one, if there is any."""
        measured = {latency.shape: latency for latency in reversed(self.work_dir.latencies)}
        first = next(iter(self.work_dir.latencies), None)
        return measured.get(shape, first) if shape else first


def latency_shape(entries: Sequence[Entry]) -> tuple[int, ...] | None:
    """Return the input shape for which most models have a latency, or None if none has any."""
    counts = Counter(
        latency.shape for entry in entries for latency in entry.work_dir.latencies
    ).most_common(1)
    return counts[0][0] if counts else None
