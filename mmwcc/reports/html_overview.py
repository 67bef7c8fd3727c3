"""The table of results on a page of results: what each model reaches and costs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from html import escape

from .html_entry import Entry, latency_shape
from .html_parts import MISSING, Cell, number, table
from .tradeoff import DENSE, describe
from .work_dirs import WorkDir

__all__ = ['overview_part']


def overview_part(entries: Sequence[Entry], metric: str | None) -> str:
    """Return the table of the accuracy and cost of every model."""
    headers = [
        'Model',
        metric or 'Accuracy',
        f'Best {metric}' if metric else 'Best',
        'G BOPs',
        'G MACs',
        'Weights, MB',
        'Latency, ms',
        'Bits w/a',
        'Coefficients kept, %',
        'Seed',
    ]
    shape, reference = latency_shape(entries), _reference(entries)
    rows = [('', _cells(entry, reference, metric, shape)) for entry in entries]
    return table(
        'What the models reach and cost',
        headers,
        rows,
        numeric=range(1, len(headers)),
    )


def _reference(entries: Sequence[Entry]) -> Entry:
    """Return the first dense model whose cost is known, or else the first model."""
    dense = [
        entry for entry in entries if entry.facts.total and describe(entry.facts.layers)[0] == DENSE
    ]
    return dense[0] if dense else entries[0]


def _cells(
    entry: Entry, reference: Entry, metric: str | None, shape: tuple[int, ...] | None
) -> list[Cell]:
    """Return the row of a model; ``shape`` is the input whose latency the models are compared
    at.
    """
    work_dir = entry.work_dir
    seed = MISSING if work_dir.seed is None else Cell(str(work_dir.seed), float(work_dir.seed))
    return [
        Cell(f'{entry.label}<small>{escape(work_dir.config_name)}</small>'),
        *_accuracy(work_dir, metric),
        *_cost(entry.facts.total, None if entry is reference else reference),
        _latency(entry, shape),
        *_compression(entry),
        seed,
    ]


def _accuracy(work_dir: WorkDir, metric: str | None) -> list[Cell]:
    """Return the result and the best validation."""
    if metric is None or work_dir.result(metric) is None:
        return [MISSING, MISSING]
    source = 'test'
    if work_dir.tested(metric) is None:
        curve = work_dir.metrics[metric]
        source = f'validation, {curve.unit} {curve.steps[-1]}'
    return [number(work_dir.result(metric), 2, source), number(work_dir.best(metric))]


def _cost(total: Mapping[str, float], reference: Entry | None) -> list[Cell]:
    """Return bit operations, MACs and bytes of weights, and the share of a reference, if any."""
    if not total:
        return [MISSING] * 3
    share = ''
    if reference is not None and reference.facts.total:
        part = total['total_bops'] / reference.facts.total['total_bops']
        share = f'{100 * part:.3g} % of {reference.name}'
    return [
        number(total['total_bops'] / 1e9, 2, share),
        number(total['macs'] / 1e9, 3),
        number(total['weight_bytes'] / 1e6, 2),
    ]


def _latency(entry: Entry, shape: tuple[int, ...] | None) -> Cell:
    """Return the measurement for a shape, or for another one, which is then named.

    The notes of the page name the machine.
    """
    latency = entry.latency(shape)
    if latency is None:
        return MISSING
    twin = '' if latency.dense is None else f', dense twin {latency.dense:.1f}'
    other = '' if latency.shape == shape else f', input {"x".join(map(str, latency.shape))}'
    return number(latency.median, 1, f'p95 {latency.p95:.1f}{twin}{other}')


def _compression(entry: Entry) -> list[Cell]:
    """Return the bits of weights and activations and the fraction kept, of compressed layers."""
    if not entry.facts.layers:
        return [MISSING, MISSING]
    layers = [layer for layer in entry.facts.layers if layer.after != 'dense'] or entry.facts.layers
    weights, acts = [layer.weight_bits for layer in layers], [layer.act_bits for layer in layers]
    kept = [100 * layer.keep_ratio for layer in layers if layer.keep_ratio is not None] or [100.0]
    return [
        Cell(f'{_span(weights)}/{_span(acts)}', statistics.mean(weights) * statistics.mean(acts)),
        Cell(_span(kept), statistics.mean(kept)),
    ]


def _span(values: Sequence[float]) -> str:
    """Format the range of some values in short form."""
    low, high = min(values), max(values)
    return f'{low:g}' if low == high else f'{low:g}–{high:g}'
