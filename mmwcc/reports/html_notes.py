"""The notes on a page of results."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .html_entry import Entry, latency_shape

__all__ = ['notes_part']


def notes_part(entries: Sequence[Entry], metric: str | None, remarks: Sequence[str] = ()) -> str:
    """Say what is missing, what could not be read, and how the numbers were obtained.

    Args:
        entries: The models.
        metric: The metric by which they are compared.
        remarks: What else to say, in full sentences.
    """
    models: dict[str, list[Entry]] = {}
    measured_at = latency_shape(entries)
    for entry in entries:
        for note in _notes(entry, metric, measured_at):
            models.setdefault(note, []).append(entry)
    items = [
        f'<li>{", ".join(entry.label for entry in those)}: {escape(note)}</li>'
        for note, those in models.items()
    ]
    # All models on a page are counted for the same images.
    bases = {str(entry.facts.basis) for entry in entries if entry.facts.basis}
    for basis in sorted(bases):
        items.append(
            f'<li>Costs are for one image of {escape(basis)}: multiply-accumulates times the bits '
            'of both factors, and the additions of wavelet transforms; full precision counts as 32 '
            'bits.</li>'
        )
    items += [f'<li>{escape(remark)}</li>' for remark in remarks]
    return f'<ul>{"".join(items)}</ul>'


def _notes(entry: Entry, metric: str | None, measured_at: tuple[int, ...] | None) -> list[str]:
    notes = [*_missing(entry, metric), *entry.work_dir.notes, *entry.facts.notes]
    if entry.facts.cost and entry.facts.cost.uncounted:
        operators = ', '.join(sorted(entry.facts.cost.uncounted))
        notes.append(f'The cost leaves out operators without a rule: {operators}.')
    latency = entry.latency(measured_at)
    if latency is not None:
        shape = 'x'.join(map(str, latency.shape))
        notes.append(
            f'Latency was measured on {shape} by {latency.machine}; peak memory of activations '
            f'{latency.memory:,.1f} MiB.'
        )
    return notes


def _missing(entry: Entry, metric: str | None) -> list[str]:
    work_dir, notes = entry.work_dir, []
    if metric is None or work_dir.result(metric) is None:
        notes.append(
            f'No {metric or "result"} is on record; run tools/test.py with --work-dir '
            f'{work_dir.path}.'
        )
    elif work_dir.tested(metric) is None:
        notes.append('No test is on record, so the accuracy is that of the last validation.')
    if not work_dir.latencies:
        notes.append('No latency is on record; train with mmwcc.BenchmarkHook to measure it.')
    if work_dir.checkpoint is None:
        notes.append('There is no checkpoint, so bits and kept fractions are those of the config.')
    return notes
