"""Draw the tables and plots of docs/benchmarks from the JSON files alone.

The tables are those between the markers in the pages of the folder.

    python tools/benchmarks/plot.py [--folder docs/benchmarks] [--check]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from tables import TABLES, conditions

ROOT = Path(__file__).resolve().parents[2]
SPEED_TABLE = ROOT / 'mmwcc' / 'compression' / 'speed_cpu.json'
MARKER = re.compile(r'(<!-- table: (\w+) -->\n).*?(<!-- end -->)', re.DOTALL)
SOURCES = dict(authors='wcc_layer', authors_system='wcc_layer_system')


def load(folder: Path, name: str) -> dict | None:
    """Read the JSON of a benchmark, or return None if it has not been run."""
    path = SPEED_TABLE if name == 'layer_map' else folder / f'{SOURCES.get(name, name)}_cpu.json'
    return json.loads(path.read_text(encoding='utf-8')) if path.exists() else None


def filled(text: str, folder: Path) -> str:
    """Return the page with a new table between each pair of markers."""

    def table(match: re.Match) -> str:
        start, name, end = match.groups()
        if name not in TABLES:
            sys.exit(
                f'plot: a marker must name one of {", ".join(TABLES)}, got {name!r}. Correct '
                'the page.'
            )
        content = load(folder, name)
        body = TABLES[name](content) if content else ''
        return (
            f'{start}\n{body}\n\n{conditions(content["environment"])}\n\n{end}'
            if body
            else f'{start}\nNot measured yet.\n\n{end}'
        )

    return MARKER.sub(table, text)


def plot_layer(content: dict, path: Path) -> None:
    """Draw the speed of one layer over the keep ratio.

    Each shape has a line, solid in float32 and dashed in int8.
    """
    from matplotlib import pyplot

    rows = [row for row in content['rows'] if row['mode'] == 'forward']
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout='constrained')
    for color, row in enumerate(rows):
        for start, style in (('k', '-'), ('int8 k', '--')):
            points = sorted(
                (float(name.removeprefix(start)), ratio)
                for name, ratio in row['speedup'].items()
                if name.startswith(start) and name != 'int8 dense'
            )
            label = (
                f'{row["size"]}x{row["size"]}, {row["channels"]} → {row["out"]}'
                if start == 'k'
                else None
            )
            axes.plot(*zip(*points, strict=True), style, marker='o', color=f'C{color}', label=label)
    axes.axhline(1, color='gray', linewidth=1)
    axes.set(
        xscale='log',
        yscale='log',
        xlabel='fraction of the wavelet coefficients kept',
        ylabel='speed relative to nn.Conv2d, float32',
        title='Inference; dashed: int8',
    )
    for axis, ticks in (
        (axes.xaxis, (0.125, 0.25, 0.5)),
        (axes.yaxis, (0.25, 0.5, 1, 2, 4, 8, 16)),
    ):
        axis.set_ticks(ticks, [f'{tick:g}' for tick in ticks])
        axis.minorticks_off()
    axes.legend(fontsize='small')
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def plot_block(content: dict, path: Path) -> None:
    """Draw Table 8: the paper's speed-ups, ours and the floors."""
    from matplotlib import pyplot

    rows = content['rows']
    figure, axes = pyplot.subplots(figsize=(9, 4.5), layout='constrained')
    ours = [row['speedup'][f'k{row["keep_ratio"]:g}'] for row in rows]
    axes.bar(range(len(rows)), ours, color='C0', label='ours')
    for key, marker, color in (('paper', 'D', 'C1'), ('floor', '_', 'k'), ('required', 'x', 'C3')):
        axes.plot(range(len(rows)), [row[key] for row in rows], marker, color=color, label=key)
    axes.axhline(1, color='gray', linewidth=1)
    names = [
        f'{row["size"]}², {row["channels"]}x{row["expansion"]}, {100 * row["keep_ratio"]:g} %'
        for row in rows
    ]
    axes.set_xticks(range(len(rows)), names, rotation=60, ha='right', fontsize='small')
    axes.set(ylabel='speed relative to dense', title="The blocks of the paper's Table 8")
    axes.legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def plot_map(content: dict, path: Path) -> None:
    """Draw the map of worth: input channels against output channels.

    Each map size and keep ratio has a panel.
    """
    from matplotlib import pyplot
    from matplotlib.colors import TwoSlopeNorm

    found = {(row['channels'], row['out'], row['size']): row['speedup'] for row in content['rows']}
    channels, sizes = (sorted({place[axis] for place in found}) for axis in (0, 2))
    keeps = [name for name in next(iter(found.values())) if name != 'k1']
    figure, panels = pyplot.subplots(
        len(keeps),
        len(sizes),
        figsize=(2.6 * len(sizes), 2.5 * len(keeps) + 0.4),
        layout='constrained',
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for keep, line in zip(keeps, panels, strict=True):
        for size, axes in zip(sizes, line, strict=True):
            values = [[found[source, out, size][keep] for out in channels] for source in channels]
            axes.imshow(values, cmap='RdYlGn', norm=TwoSlopeNorm(1, 0, 3), origin='lower')
            for i, row in enumerate(values):
                for j, value in enumerate(row):
                    axes.text(j, i, f'{value:.1f}', ha='center', va='center', fontsize=7)
            axes.set_title(f'{size}x{size}, {100 * float(keep[1:]):g} % kept', fontsize=9)
            axes.set_xticks(range(len(channels)), channels, fontsize=8)
            axes.set_yticks(range(len(channels)), channels, fontsize=8)
    figure.supxlabel('output channels', fontsize=9)
    figure.supylabel('input channels', fontsize=9)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def plot_deployed(content: dict, path: Path) -> None:
    """Draw the time of each engine on one network, with the quartiles."""
    from matplotlib import pyplot

    rows = sorted(content['rows'], key=lambda row: row['milliseconds'], reverse=True)
    times = [row['milliseconds'] for row in rows]
    spread = [
        [time - row['quartiles'][0] for time, row in zip(times, rows, strict=True)],
        [row['quartiles'][1] - time for time, row in zip(times, rows, strict=True)],
    ]
    ours = ['C0' if 'mmwcc' in row['title'] or 'our' in row['title'] else 'C7' for row in rows]
    figure, axes = pyplot.subplots(figsize=(8, 0.3 * len(rows) + 1), layout='constrained')
    bars = axes.barh([row['title'] for row in rows], times, xerr=spread, color=ours)
    axes.bar_label(bars, fmt='%.0f', padding=4, fontsize='small')
    about = content['environment']
    axes.set(
        xlabel='ms for one image; blue: made by mmwcc',
        title='{}, {}x{}'.format(about['network'], *about['size']),
    )
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


PLOTS = dict(wcc_layer=plot_layer, wcc_block=plot_block, layer_map=plot_map) | dict.fromkeys(
    (name for name in TABLES if name.startswith('deployed')), plot_deployed
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--folder', type=Path, default=ROOT / 'docs' / 'benchmarks', help='JSON files and pages'
    )
    parser.add_argument(
        '--check', action='store_true', help='write nothing; fail if a page is not up to date'
    )
    args = parser.parse_args()
    for page in sorted(args.folder.glob('*.md')):
        old = page.read_text(encoding='utf-8')
        text = filled(old, args.folder)
        if args.check and text != old:
            sys.exit(
                f'plot: {page} must show what the JSON files beside it say. Run '
                'tools/benchmarks/plot.py.'
            )
        if text != old:
            page.write_text(text, encoding='utf-8')
    if args.check:
        return
    import matplotlib

    matplotlib.use('Agg')
    for name, plot in PLOTS.items():
        content = load(args.folder, name)
        if content:
            plot(content, args.folder / f'{name}_cpu.png')


if __name__ == '__main__':
    main()
