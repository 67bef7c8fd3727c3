"""What came of the trials of a model zoo, as a table and as a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmwcc.messages import some_of
from mmwcc.model_tree import aligned

from .methods import Method
from .shares import LARGE

__all__ = ['faults', 'summary', 'zoo_page', 'zoo_table']

Results = Mapping[str, Mapping[str, Any]]

_HEADER = ('method', 'dense', 'compressed', 'wavelets', 'quantized', 'stays dense', 'lost', 's')
_LONGEST = 160

_INTRODUCTION = """# The model zoo, compressed

`try_zoo.py` tries one config of every stock method: the first that the metafile of the method
lists. It builds the network with random weights, trains it for one step on two random images and
asks it for a prediction, first dense and then compressed by the preset `{preset}`. This page is the
output of

    python tools/analysis_tools/try_zoo.py --out docs/zoo.md

with {versions}, on the CPU. Running the same command again skips what has been tried, and `--only`
names methods.

- **size**: height and width of the images. It is the smallest of {sizes} at which the dense network
  runs. The shares below are those of this small image, for which a detector keeps at most 16
  proposals. At the size that the config is made for, parts of fixed size, such as the queries of a
  transformer or what follows global pooling, have smaller shares.
- **wavelets**, **quantized**: shares of the multiply-accumulate operations in wavelet layers and in
  layers that are quantized only. `print_compression.py` shows every layer of a config.
- **stays dense**: kinds of layers in full precision with more than {large:.0%} of the operations,
  and why. The preset keeps the first convolution and those that predict dense. Nothing but
  `nn.Conv2d` is compressed.
- **lost**: parameters that train dense and get no gradient compressed.
- **s**: processor time of both trials.
"""


def summary(result: Mapping[str, Any]) -> str:
    """Return what came of a trial, in a few words."""
    reason = _why_not_compared(result)
    if reason:
        return reason
    wrong = faults(result)
    return f'FAULT: {" ".join(wrong)}' if wrong else 'runs'


def faults(result: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a compressed network that runs dense, in whole sentences.

    Args:
        result: What :func:`mmwcc.zoo.try_method` returned.
    """
    compressed = result.get('compressed')
    if compressed is None:
        return []
    if compressed['error']:
        return [f'It fails compressed: {_short(compressed["error"])}.']
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


def _why_not_compared(result: Mapping[str, Any]) -> str:
    """Return why there is nothing to compare, or '' if both networks were to run."""
    if 'outside' in result:
        return f'not tried: {result["outside"]}'
    if 'broken' in result:
        return f'not finished: {result["broken"]}'
    if 'nothing' in result:
        return f'nothing to compress: {result["nothing"]}'
    error = result['dense']['error']
    return f'does not run dense: {_short(error)}' if error else ''


def _short(error: str) -> str:
    """Return the beginning of an error in one line."""
    line = ' '.join(error.split())
    return line if len(line) <= _LONGEST else f'{line[:_LONGEST]}…'


def zoo_table(methods: Sequence[Method], results: Results) -> str:
    """Return a table with a row for each method that has a result, and the faults below it."""
    tried = [method for method in methods if method.key in results]
    rows = [_row(method, results[method.key]) for method in tried]
    wrong = [
        f'{method.key}: {" ".join(found)}'
        for method in tried
        if (found := faults(results[method.key]))
    ]
    return '\n'.join([*aligned([_HEADER, *rows], numeric=(3, 4, 6, 7)), *wrong])


def _row(method: Method, result: Mapping[str, Any]) -> tuple[str, ...]:
    seconds = f'{result.get("seconds", 0):.0f}'
    reason = _why_not_compared(result)
    if reason:
        return method.key, reason, '', '', '', '', '', seconds
    if result['compressed']['error']:
        return method.key, 'runs', 'FAILS', '', '', '', '', seconds
    return method.key, 'runs', 'runs', *_shares(result['shares']), _lost(result), seconds


def _lost(result: Mapping[str, Any]) -> str:
    return f'{len(result["lost"])} of {result["trained"]}'


def _shares(shares: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the cells of wavelets, quantized layers, and what stays dense."""
    if 'error' in shares:
        return '?', '?', f'not counted: {_short(shares["error"])}'
    stays = '; '.join(
        f'{part["share"]:.0%} {part["kind"]} ({part["reason"] or "WITHOUT A REASON"})'
        for part in shares['dense']
        if part['share'] > LARGE
    )
    return f'{shares["wavelet"]:.0%}', f'{shares["quantized"]:.0%}', stays


def zoo_page(
    methods: Sequence[Method],
    results: Results,
    preset: str,
    sizes: Sequence[int],
    versions: Mapping[str, str],
) -> str:
    """Return the results as a page in Markdown.

    Args:
        methods: The methods that it shows.
        results: What came of them.
        preset: The preset that compressed them.
        sizes: Heights and widths that were tried.
        versions: The versions that were used.
    """
    introduction = _INTRODUCTION.format(
        preset=preset,
        versions=', '.join(f'{name} {version}' for name, version in versions.items()),
        sizes=', '.join(map(str, sizes)),
        large=LARGE,
    )
    parts = [introduction]
    for library in dict.fromkeys(method.library for method in methods):
        own = [method for method in methods if method.library == library]
        parts.append('\n'.join(_section(library, own, results)))
    return '\n'.join(parts) + '\n'


def _section(library: str, methods: Sequence[Method], results: Results) -> Iterator[str]:
    tried = [method for method in methods if method.key in results]
    ran = [method for method in tried if not _why_not_compared(results[method.key])]
    wrong = {method.name: faults(results[method.key]) for method in ran}
    good = sum(not found for found in wrong.values())
    yield f'## {library}\n'
    yield (
        f'Of {len(methods)} methods, {len(tried)} have been tried, and {len(ran)} of these can be '
        f'compared. Of those, {good} train and predict compressed without a fault.\n'
    )
    yield '| method | config | size | wavelets | quantized | stays dense | lost | s |'
    yield '|---|---|---|---|---|---|---|---|'
    for method in ran:
        yield f'| {" | ".join(_cells(method, results[method.key]))} |'
    yield from _list('Faults:', {name: ' '.join(found) for name, found in wrong.items()})
    yield from _list(
        'Not compared:',
        {method.name: _why_not_compared(results[method.key]) for method in tried},
    )
    yield ''


def _cells(method: Method, result: Mapping[str, Any]) -> list[str]:
    name = method.config.stem if method.config else ''
    size, seconds = str(result['size']), f'{result.get("seconds", 0):.0f}'
    if result['compressed']['error']:
        return [method.name, name, size, '', '', 'fails compressed', '', seconds]
    return [method.name, name, size, *_shares(result['shares']), _lost(result), seconds]


def _list(title: str, entries: Mapping[str, str]) -> Iterator[str]:
    lines = [f'- `{name}`: {text}' for name, text in entries.items() if text]
    if lines:
        yield f'\n{title}\n'
        yield from lines
