"""The content of the page of :mod:`mmwcc.reports.html_report`, part by part."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from mmengine.config import Config

from mmwcc.compressed_config import is_compressed

from .html_parts import MISSING, Cell, Chart, Series, code, data_uri, number, table
from .model_facts import ModelFacts
from .work_dirs import WorkDir

__all__ = [
    'Entry',
    'curve_charts',
    'curve_figures',
    'layers_part',
    'notes_part',
    'overview_part',
    'predictions_part',
    'said',
    'settings_part',
    'trade_off_chart',
]

_IGNORED_SETTINGS = ('work_dir', 'launcher', 'log_level', 'resume')
_LONGEST_SETTING = 300


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


def said(text: str) -> str:
    """Return a note that something is missing."""
    return f'<p class="missing">{escape(text)}</p>'


def overview_part(entries: Sequence[Entry], metric: str | None) -> str:
    """Return the table of the accuracy and cost of every model."""
    first = entries[0].facts.total
    headers = [
        'Model',
        metric or 'Accuracy',
        f'Best {metric}' if metric else 'Best',
        'G BOPs',
        'G MACs',
        'Weights, MB',
        'Latency, ms',
        'Bits w/a',
        'Kept, %',
        'Seed',
    ]
    rows = []
    for entry in entries:
        total, work_dir = entry.facts.total, entry.work_dir
        cells = [
            Cell(f'{entry.label}<small>{escape(work_dir.config_name)}</small>'),
            *_accuracy(work_dir, metric),
        ]
        if total:
            share = (
                f'{100 * total["total_bops"] / first["total_bops"]:.3g} %'
                if first and entry.index
                else ''
            )
            cells += [
                number(total['total_bops'] / 1e9, 2, share),
                number(total['macs'] / 1e9, 3),
                number(total['weight_bytes'] / 1e6, 2),
            ]
        else:
            cells += [MISSING] * 3
        cells += [
            _latency(work_dir),
            *_compression(entry),
            Cell(str(work_dir.seed), float(work_dir.seed))
            if work_dir.seed is not None
            else MISSING,
        ]
        rows.append(('', cells))
    return table(
        f'What the models reach and cost; percentages are of {entries[0].name}',
        headers,
        rows,
        numeric=range(1, len(headers)),
    )


def _accuracy(work_dir: WorkDir, metric: str | None) -> list[Cell]:
    """Return the result and the best validation."""
    if metric is None or work_dir.result(metric) is None:
        return [MISSING, MISSING]
    if work_dir.tested(metric) is not None:
        source = 'test'
    else:
        curve = work_dir.metrics[metric]
        source = f'validation, {curve.unit} {curve.steps[-1]}'
    return [number(work_dir.result(metric), 2, source), number(work_dir.best(metric))]


def _latency(work_dir: WorkDir) -> Cell:
    """Return the measurements for the first shape; :func:`notes_part` names the machine."""
    if not work_dir.latencies:
        return MISSING
    first = work_dir.latencies[0]
    twin = '' if first.dense is None else f', dense twin {first.dense:.1f}'
    return number(first.median, 1, f'p95 {first.p95:.1f}{twin}')


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


def trade_off_chart(entries: Sequence[Entry], metric: str | None) -> Chart:
    """Return the chart of accuracy against bit operations, for the models that have both."""
    points = [
        (entry, entry.facts.total['total_bops'] / 1e9, entry.work_dir.result(metric))
        for entry in entries
        if entry.facts.total and metric is not None
    ]
    return Chart(
        f'{metric} against bit operations',
        'G BOPs',
        metric or '',
        [
            Series(entry.name, entry.index, [(bops, result)])
            for entry, bops, result in points
            if result is not None and math.isfinite(result)
        ],
        scatter=True,
    )


def curve_charts(entries: Sequence[Entry], metric: str | None) -> list[Chart]:
    """Return a chart for every quantity worth plotting.

    Models that count in epochs and models that count in iterations get separate charts.
    """
    wanted = [(f'Validation: {metric}', metric, 'metrics')] if metric else []
    wanted += [('Training loss', 'loss', 'losses'), ('Learning rate', 'lr', 'losses')]
    scheduled = sorted(
        {
            name
            for entry in entries
            for name in entry.work_dir.losses
            if name.startswith('compression/')
        }
    )
    wanted += [(f'Schedule: {name.partition("/")[2]}', name, 'losses') for name in scheduled]
    charts = []
    for title, name, where in wanted:
        curves = [
            (entry, getattr(entry.work_dir, where)[name])
            for entry in entries
            if name in getattr(entry.work_dir, where)
        ]
        for unit in sorted({curve.unit for _, curve in curves}):
            charts.append(
                Chart(
                    title,
                    unit,
                    name,
                    [
                        Series.of(entry.name, entry.index, curve)
                        for entry, curve in curves
                        if curve.unit == unit
                    ],
                )
            )
    return charts


def curve_figures(curves: Sequence[Chart], figures: dict[int, str]) -> str:
    """Return the figures of the curves. ``figures`` holds them by the id of their charts."""
    drawn = [figures[id(chart)] for chart in curves if id(chart) in figures]
    return (
        f'<div class="charts">{"".join(drawn)}</div>'
        if drawn
        else said('No training is on record.')
    )


def predictions_part(entries: Sequence[Entry], pictures: int) -> str:
    """Return images side by side, starting with those that most models have."""
    counts = Counter(name for entry in entries for name in entry.work_dir.pictures)
    chosen = sorted(counts, key=lambda name: (-counts[name], name))[:pictures]
    if not chosen:
        return said(
            'No pictures are on record. Test with --show-dir inside of the work folder to draw predictions.'
            if pictures
            else 'None were asked for.'
        )
    return '\n'.join(
        f'<div class="picture"><h3>{escape(name)}</h3><div>'
        + ''.join(_figure(entry, name) for entry in entries)
        + '</div></div>'
        for name in chosen
    )


def _figure(entry: Entry, name: str) -> str:
    file = entry.work_dir.pictures.get(name)
    uri = data_uri(file) if file else None
    if uri is None:
        state = 'could not be read' if file else 'not drawn'
        return f'<figure><figcaption>{entry.label}: {state}</figcaption></figure>'
    return (
        f'<figure><img src="{uri}" alt="{escape(name)} by {escape(entry.name)}"><figcaption>{entry.label}'
        '</figcaption></figure>'
    )


def layers_part(entries: Sequence[Entry]) -> str:
    """Return the table of all convolutions, with controls to filter it."""
    rows, models = [], [entry for entry in entries if entry.facts.layers]
    if not models:
        return said('No model could be built from its config; the notes say why.')
    for entry in models:
        costs = entry.facts.layer_costs
        total = entry.facts.cost.total.total_bops if entry.facts.cost else 0
        for layer in entry.facts.layers:
            cost = costs.get(layer.name)
            bits = [number(value, 0) for value in (layer.weight_bits, layer.act_bits)]
            rows.append(
                (
                    f'data-model="{entry.index}"',
                    [
                        Cell(code(layer.name)),
                        Cell(entry.label),
                        Cell.text(layer.before),
                        Cell(
                            escape(layer.after)
                            + (f'<small>{escape(layer.reason)}</small>' if layer.reason else '')
                        ),
                        *bits,
                        number(None if layer.keep_ratio is None else 100 * layer.keep_ratio, 1),
                        number(layer.weights, 0),
                        number(cost.macs / 1e6 if cost else None, 2),
                        number(
                            cost.total_bops / 1e6 if cost else None,
                            1,
                            share=cost.total_bops / total if cost and total else None,
                        ),
                    ],
                )
            )
    chosen = next(
        (
            entry.index
            for entry in models
            if any(layer.after != 'dense' for layer in entry.facts.layers)
        ),
        models[0].index,
    )
    options = ''.join(
        f'<option value="{entry.index}"{" selected" * (entry.index == chosen)}>{escape(entry.name)}'
        '</option>'
        for entry in models
    )
    controls = (
        f'<div class="controls" hidden><label>Model<select id="layer-model"><option value="">All models'
        f'</option>{options}</select></label><label>Filter<input type="search" id="layer-text" '
        'placeholder="name, class, reason …"></label><output id="layer-count" aria-live="polite"></output>'
        '</div>'
    )
    headers = [
        'Layer',
        'Model',
        'From',
        'To',
        'w bits',
        'a bits',
        'Kept, %',
        'Weights',
        'M MACs',
        'M BOPs',
    ]
    return controls + table(
        'Convolutions; the bar behind the bit operations is their share of the whole model',
        headers,
        rows,
        tall=True,
        numeric=range(4, 10),
    )


def settings_part(entries: Sequence[Entry]) -> str:
    """Return the differences between configs, those of the model first, and each full config."""
    flat = [_flatten(_comparable(entry.work_dir.config)) for entry in entries]
    names = dict.fromkeys(name for settings in flat for name in settings)
    differing = [name for name in names if len({settings.get(name) for settings in flat}) > 1]
    differing.sort(key=lambda name: not name.startswith('model.'))
    parts = []
    if differing:
        rows = [
            (
                '',
                [
                    Cell(code(name)),
                    *(
                        Cell(code(_shortened(settings[name])))
                        if name in settings
                        else Cell('<span class="quiet">not set</span>')
                        for settings in flat
                    ),
                ],
            )
            for name in differing
        ]
        parts.append(
            table(
                'What differs between the configs',
                ['Setting', *(entry.name for entry in entries)],
                rows,
                tall=len(rows) > 15,
            )
        )
    elif len(entries) > 1:
        parts.append('<p>The configs do not differ.</p>')
    parts += [
        f'<details><summary>Config of {entry.label}</summary><pre tabindex="0">{_config_text(entry)}</pre>'
        '</details>'
        for entry in entries
    ]
    return '\n'.join(parts)


def _config_text(entry: Entry) -> str:
    return escape(
        '\n'.join(
            f'{name} = {value}' for name, value in _flatten(entry.work_dir.config.to_dict()).items()
        )
    )


def _comparable(config: Config) -> dict[str, Any]:
    """Return the part of a config that determines the model."""
    settings = {
        key: value for key, value in config.to_dict().items() if key not in _IGNORED_SETTINGS
    }
    if config.get('resume'):
        # This names where training was resumed, not where it began.
        settings.pop('load_from', None)
    if is_compressed(settings.get('model') or {}):
        settings.pop('compression', None)  # the model has its own copy
    return settings


def _flatten(value: Any, prefix: str = '') -> dict[str, str]:
    """Flatten nested dictionaries, and lists of them, to dotted names with values as in Python."""
    if isinstance(value, dict) and value:
        items = [(f'{prefix}.{key}' if prefix else str(key), part) for key, part in value.items()]
    elif isinstance(value, (list, tuple)) and any(isinstance(part, dict) for part in value):
        items = [(f'{prefix}[{place}]', part) for place, part in enumerate(value)]
    else:
        return {prefix: repr(value)}
    return {name: leaf for key, part in items for name, leaf in _flatten(part, key).items()}


def _shortened(text: str) -> str:
    return (
        text
        if len(text) <= _LONGEST_SETTING
        else f'{text[:_LONGEST_SETTING]} … ({len(text):,} characters)'
    )


def notes_part(entries: Sequence[Entry], metric: str | None) -> str:
    """Say what is missing, what could not be read, and how the numbers were obtained."""
    models: dict[str, list[Entry]] = {}
    for entry in entries:
        notes = [*_missing(entry, metric), *entry.work_dir.notes, *entry.facts.notes]
        if entry.facts.cost and entry.facts.cost.uncounted:
            operators = ', '.join(sorted(entry.facts.cost.uncounted))
            notes.append(f'The cost leaves out operators without a rule: {operators}.')
        for latency in entry.work_dir.latencies[:1]:
            notes.append(
                f'Latency was measured on {_by(latency.shape)} by {latency.machine}; peak memory of '
                f'activations {latency.memory:,.1f} MiB.'
            )
        for note in notes:
            models.setdefault(note, []).append(entry)
    items = [
        f'<li>{", ".join(entry.label for entry in those)}: {escape(note)}</li>'
        for note, those in models.items()
    ]
    bases = {entry.facts.basis for entry in entries if entry.facts.basis}
    if bases:
        sizes = ' and '.join(
            sorted(
                f'{_by(shape[-2:])} by the convention “{convention}”' for convention, shape in bases
            )
        )
        different = (
            ' These differ, so the costs cannot be compared; give --shape.'
            if len(bases) > 1
            else ''
        )
        items.append(
            f'<li>Costs are for one image of {escape(sizes)}: multiply-accumulates times the bits of both '
            'factors, and the additions of wavelet transforms; full precision counts as 32 bits.'
            f'{different}</li>'
        )
    return f'<ul>{"".join(items)}</ul>'


def _by(shape: Sequence[int]) -> str:
    return '×'.join(map(str, shape))


def _missing(entry: Entry, metric: str | None) -> list[str]:
    work_dir, notes = entry.work_dir, []
    if metric is None or work_dir.result(metric) is None:
        notes.append(
            f'No {metric or "result"} is on record; run tools/test.py with --work-dir {work_dir.path}.'
        )
    elif work_dir.tested(metric) is None:
        notes.append('No test is on record, so the accuracy is that of the last validation.')
    if not work_dir.latencies:
        notes.append('No latency is on record; train with mmwcc.BenchmarkHook to measure it.')
    if work_dir.checkpoint is None:
        notes.append('There is no checkpoint, so bits and kept fractions are those of the config.')
    return notes
