"""Plot the accuracy of dense, quantized and wavelet compressed networks over bit operations.

    python tools/analysis_tools/plot_tradeoff.py work_dirs/a work_dirs/b ... [--metric mIoU]

Reads work folders, and writes tradeoff.png and tradeoff.csv. Folders with the same config name are
treated as several seeds of one training; the plot shows their mean with its standard error. All
costs are counted for images of one size. What is no run is left out and named.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from mmwcc.reports import (
    WHICH,
    LeftOut,
    ModelFacts,
    TradeoffPoint,
    WorkDir,
    common_metric,
    examine_all,
    gather_points,
    plot_tradeoff,
    read_work_dirs,
    write_tradeoff,
)
from mmwcc.utils import one_line_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description='Plot accuracy against bit operations from work folders'
    )
    parser.add_argument(
        'work_dirs',
        nargs='+',
        metavar='WORK_DIR',
        help='folders that tools/train.py or test.py wrote; anything else is left out and named',
    )
    parser.add_argument(
        '--metric',
        help='name of the result, for example mIoU; by default the one most folders have',
    )
    parser.add_argument(
        '--which',
        choices=WHICH,
        default='result',
        help='result: the tested value, else the last of validation; last or best: of validation',
    )
    parser.add_argument(
        '--better',
        choices=('larger', 'smaller'),
        help='which values are better, if not known by name',
    )
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='image size that all costs are counted for; by default that of the first model',
    )
    parser.add_argument('--title', default='', help='title of the plot')
    parser.add_argument(
        '--out-dir', type=Path, default=Path('work_dirs/tradeoff'), help='where to write'
    )
    return parser.parse_args(argv)


def table(points: list[TradeoffPoint], metric: str) -> str:
    """Return a Markdown table, cheapest first."""
    height, width = points[0].image
    lines = [
        f'| network | | G BOPs, {height}x{width} | {metric} | runs | Pareto front |',
        '|---' * 6 + '|',
    ]
    for point in points:
        error = '' if point.error is None else f' ± {point.error:.2g}'
        lines.append(
            f'| {point.family} | {point.label} | {point.bops / 1e9:,.4g} | {point.mean:.4g}{error} '
            f'| {len(point.values)} | {"yes" if point.pareto else ""} |'
        )
    return '\n'.join(lines)


def why_no_point(work_dir: WorkDir, facts: ModelFacts, metric: str, which: str) -> str:
    """Return why a work folder is not in the plot, or '' if it is."""
    value = getattr(work_dir, which)(metric)
    if value is None:
        if which != 'result' and work_dir.result(metric) is not None:
            return f'It was tested, but no validation measured {metric}.'
        others = ', '.join(work_dir.metric_names())
        return f'It has no {metric}, but {others}.' if others else f'It has no {metric}.'
    if not math.isfinite(value):
        return f'Its {metric} is {value}.'
    return '' if facts.cost else ' '.join(facts.notes)


def main(argv: list[str] | None = None) -> None:
    """Read, plot, write and print."""
    args = parse_args(argv)
    with one_line_errors('plot_tradeoff', OSError, ValueError):
        work_dirs, left_out = read_work_dirs(args.work_dirs, verbose=True)
        metric = common_metric(work_dirs, args.metric)
        if metric is None:
            raise ValueError(
                'work folders must have a metric, got none. Validate or test the networks first.'
            )
        facts = examine_all(work_dirs, args.shape, verbose=True)
        for work_dir, fact in zip(work_dirs, facts, strict=True):
            reason = why_no_point(work_dir, fact, metric, args.which)
            if reason:
                left_out.append(LeftOut(work_dir.path, reason))
        for each in left_out:
            print(each, file=sys.stderr)
        larger = None if args.better is None else args.better == 'larger'
        points = gather_points(work_dirs, facts, metric, args.which, larger)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    write_tradeoff(points, metric, args.out_dir / 'tradeoff.csv')
    plot_tradeoff(points, metric, args.out_dir / 'tradeoff.png', args.title)
    print(table(points, metric))
    print(f'wrote {args.out_dir / "tradeoff.png"} and {args.out_dir / "tradeoff.csv"}')


if __name__ == '__main__':
    main()
