"""Try every stock method of mmsegmentation and mmdetection, dense and compressed.

    python tools/analysis_tools/try_zoo.py
    python tools/analysis_tools/try_zoo.py --library mmseg --only 'psp*' unet

One config of each method is built with random weights, trained for one step on random images and
asked for a prediction, first dense and then compressed by a preset. Nothing is downloaded. Running
the same command again skips what has been tried. docs/zoo.md shows the results.
"""

from __future__ import annotations

import argparse
import sys
from fnmatch import fnmatch
from pathlib import Path

from mmwcc.messages import did_you_mean
from mmwcc.presets import preset_names
from mmwcc.utils import LaunchError, one_line_errors
from mmwcc.zoo import (
    LIBRARIES,
    SIZES,
    Method,
    ZooRun,
    faults,
    methods,
    versions,
    zoo_page,
    zoo_table,
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description='Train every stock method for one step, dense and compressed'
    )
    parser.add_argument(
        '--library', nargs='+', choices=LIBRARIES, default=LIBRARIES, help='default: all'
    )
    parser.add_argument(
        '--only',
        nargs='+',
        default=['*'],
        metavar='PATTERN',
        help='names of methods, which are folders of configs, with * and ?',
    )
    parser.add_argument(
        '--preset',
        choices=preset_names(),
        default='wcc_w8a8_k50',
        metavar='NAME',
        help=f'how to compress: {", ".join(preset_names())} (default: wcc_w8a8_k50)',
    )
    parser.add_argument(
        '--results',
        type=Path,
        default=Path('work_dirs/zoo.json'),
        metavar='FILE.json',
        help='keeps the results; logs go to a folder beside it (default: work_dirs/zoo.json)',
    )
    parser.add_argument('--out', type=Path, metavar='FILE.md', help='also write them as a page')
    parser.add_argument(
        '--seconds', type=float, default=300, help='time limit for a method (default: 300)'
    )
    parser.add_argument(
        '--gigabytes', type=float, default=6, help='memory limit for a method (default: 6)'
    )
    parser.add_argument('--jobs', type=int, default=1, help='trials at a time (default: 1)')
    return parser.parse_args(argv)


def chosen(libraries: list[str], patterns: list[str]) -> list[Method]:
    """Return the methods that a pattern names.

    Raises:
        LaunchError: If a pattern names none.
    """
    every = [method for library in libraries for method in methods(library)]
    names = [method.name for method in every]
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in names):
            raise LaunchError(
                f'--only {pattern} names no method. {did_you_mean(pattern, names)}Methods: '
                f'{", ".join(sorted(set(names)))}.'
            )
    return [method for method in every if any(fnmatch(method.name, p) for p in patterns)]


def main(argv: list[str] | None = None) -> None:
    """Try the methods, print the table; exit code 1 if compression breaks one."""
    args = parse_args(argv)
    with one_line_errors('try_zoo', ValueError):
        selected = chosen(args.library, args.only)
        run = ZooRun(args.results, args.preset, args.seconds, args.gigabytes)
        run.run(selected, args.jobs)
    print(zoo_table(selected, run.results))
    if args.out is not None:
        page = zoo_page(selected, run.results, args.preset, SIZES, versions())
        args.out.write_text(page, encoding='utf-8')
        print(f'wrote {args.out}')
    sys.exit(any(faults(run.results[method.key]) for method in selected))


if __name__ == '__main__':
    main()
