"""The table of layers on a page of results."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mmwcc.cost import LayerCost
from mmwcc.model_tree import LayerReport

from .html_entry import Entry
from .html_parts import Cell, code, number, said, table

__all__ = ['layers_part']

_HEADERS = (
    'Layer',
    'Model',
    'From',
    'To',
    'w bits',
    'a bits',
    'Coefficients kept, %',
    'Weights',
    'M MACs',
    'M BOPs',
)


def layers_part(entries: Sequence[Entry]) -> str:
    """Return the table of all convolutions, with controls to filter it."""
    models = [entry for entry in entries if entry.facts.layers]
    if not models:
        return said('No model could be built from its config; the notes say why.')
    rows = []
    for entry in models:
        costs = entry.facts.layer_costs
        total = entry.facts.cost.total.total_bops if entry.facts.cost else 0
        rows += [
            (f'data-model="{entry.index}"', _cells(entry, layer, costs.get(layer.name), total))
            for layer in entry.facts.layers
        ]
    return _controls(models) + table(
        'Convolutions; the bar behind the bit operations is their share of the whole model',
        _HEADERS,
        rows,
        tall=True,
        numeric=range(4, 10),
    )


def _cells(entry: Entry, layer: LayerReport, cost: LayerCost | None, total: float) -> list[Cell]:
    """Return the row of a layer; ``total`` is the number of bit operations of the whole model."""
    reason = f'<small>{escape(layer.reason)}</small>' if layer.reason else ''
    kept = None if layer.keep_ratio is None else 100 * layer.keep_ratio
    macs, bops, share = None, None, None
    if cost is not None:
        macs, bops = cost.macs / 1e6, cost.total_bops / 1e6
        share = cost.total_bops / total if total else None
    return [
        Cell(code(layer.name)),
        Cell(entry.label),
        Cell.text(layer.before),
        Cell(escape(layer.after) + reason),
        number(layer.weight_bits, 0),
        number(layer.act_bits, 0),
        number(kept, 1),
        number(layer.weights, 0),
        number(macs, 2),
        number(bops, 1, share=share),
    ]


def _controls(models: Sequence[Entry]) -> str:
    """Return the controls of the table, set to the first model that is compressed."""
    compressed = [
        entry.index
        for entry in models
        if any(layer.after != 'dense' for layer in entry.facts.layers)
    ]
    chosen = compressed[0] if compressed else models[0].index
    options = ''.join(
        f'<option value="{entry.index}"{" selected" * (entry.index == chosen)}>'
        f'{escape(entry.name)}</option>'
        for entry in models
    )
    return (
        '<div class="controls" hidden><label>Model<select id="layer-model">'
        f'<option value="">All models</option>{options}</select></label>'
        '<label>Filter<input type="search" id="layer-text" placeholder="name, class, reason …">'
        '</label><output id="layer-count" aria-live="polite"></output></div>'
    )
