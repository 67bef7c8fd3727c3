"""What came of the trials of a model zoo, as a table and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmwcc.messages import some_of
from mmwcc.model_tree import aligned

from .methods import Method
from .shares import LARGE

__all__ = ['faults', 'zoo_page', 'zoo_table']

Results = Mapping[str, Mapping[str, Any]]

_HEADER = ('method', 'dense', 'compressed', 'wavelets', 'quantized', 'stays dense', 'lost', 's')
_LONGEST = 160


def faults(result: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a compressed network that runs dense, in whole sentences.

    Args:
        result: What :func:`mmwcc.zoo.try_method` returned.
    """
    compressed = result.get('compressed')
    if compressed is None:
        return []
    if compressed['error']:
        return [f'It fails compressed: {compressed["error"]}.']
    found = []
    if compressed['wrong_losses'] and not result['dense']['wrong_losses']:
        found.append(f'These losses are not finite: {", ".join(compressed["wrong_losses"])}.')
    if result['lost']:
        found.append(
            f'{len(result["lost"])} of {result["trained"]} parameters get no gradient: '
            f'{some_of(result["lost"])}.'
        )
    found += [
        f'{part["kind"]} has {part["share"]:.0%} of the operations and stays dense without a '
        'reason.'
        for part in result['shares'].get('dense', ())
        if part['share'] > LARGE and not part['reason']
    ]
    return found


def _rows(methods: Sequence[Method], results: Results) -> list[tuple[str, ...]]:
    return [_row(method, results[method.key]) for method in methods if method.key in results]


def _row(method: Method, result: Mapping[str, Any]) -> tuple[str, ...]:
    seconds = f'{result.get("seconds", 0):.0f}'
    nothing = ('', '', '', '', '')
    if 'outside' in result:
        return method.name, f'not tried: {result["outside"]}', *nothing, seconds
    if 'broken' in result:
        return method.name, f'not finished: {result["broken"]}', *nothing, seconds
    if result['dense']['error']:
        return method.name, _short(result['dense']['error']), *nothing, seconds
    if result['compressed']['error']:
        return method.name, 'runs', _short(result['compressed']['error']), *nothing[1:], seconds
    shares = result['shares']
    counted = (
        ('not counted', '', '')
        if 'error' in shares
        else (f'{shares["wavelet"]:.0%}', f'{shares["quantized"]:.0%}', _stays(shares['dense']))
    )
    return method.name, 'runs', 'runs', *counted, str(len(result['lost'])), seconds


def _stays(dense: Sequence[Mapping[str, Any]]) -> str:
    """List what is in full precision and holds many of the operations."""
    return '; '.join(
        f'{part["share"]:.0%} {part["kind"]} ({part["reason"] or "WITHOUT A REASON"})'
        for part in dense
        if part['share'] > LARGE
    )


def _short(error: str) -> str:
    """Return the beginning of an error in one line."""
    line = ' '.join(error.split())
    return line if len(line) <= _LONGEST else f'{line[:_LONGEST]}…'


def zoo_table(methods: Sequence[Method], results: Results) -> str:
    """Return a table with a row for each method that has a result, and the faults below it."""
    lines = aligned([_HEADER, *_rows(methods, results)], numeric=(3, 4, 6, 7))
    wrong = [
        f'{method.key}: {" ".join(found)}'
        for method in methods
        if (found := faults(results.get(method.key, {})))
    ]
    return '\n'.join([*lines, *wrong])


def zoo_page(methods: Sequence[Method], run: Any) -> str:
    """Return the page."""
    return ''
