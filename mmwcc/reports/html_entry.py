"""A model on a page of results."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from .model_facts import ModelFacts
from .work_dirs import WorkDir

__all__ = ['Entry']


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
        return f'<span class="swatch" style="--series:var(--s{self.index % 8})"></span>{escape(self.name)}'
