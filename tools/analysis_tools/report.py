"""Compare trained models on one HTML page: accuracy, cost, latency, layers, curves and predictions.

    python tools/analysis_tools/report.py work_dirs/dense work_dirs/quant work_dirs/wcc --out
    report.html python tools/analysis_tools/report.py work_dirs/*

The page can be read offline. The other work folders are compared with the first one. What is no run
is left out and named.
"""

from __future__ import annotations

import argparse
import sys

from mmwcc.reports import report_folders
from mmwcc.utils import one_line_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description='Compare trained models on one HTML page')
    parser.add_argument(
        'work_dirs',
        nargs='+',
        metavar='WORK_DIR',
        help='work folder of a training, the dense one first; anything else is left out and named',
    )
    parser.add_argument(
        '--out', default='report.html', metavar='FILE.html', help='the page; report.html by default'
    )
    parser.add_argument('--title', default='Models compared', help='title of the page')
    parser.add_argument(
        '--metric', help='accuracy to compare by; by default what the folders have in common'
    )
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help='image size that all costs are counted for; by default that of the first model',
    )
    parser.add_argument(
        '--images', type=int, default=6, help='example images of each model, at most; 6 by default'
    )
    args = parser.parse_args(argv)
    if not args.out.endswith(('.html', '.htm')):
        parser.error(f'--out must end in .html, got {args.out}')
    return args


def main(argv: list[str] | None = None) -> None:
    """Write the page that the command line asks for."""
    args = parse_args(argv)
    with one_line_errors('report', OSError, ValueError):
        left_out = report_folders(
            args.work_dirs,
            args.out,
            title=args.title,
            metric=args.metric,
            shape=args.shape,
            images=args.images,
            verbose=True,
        )
    for each in left_out:
        print(each, file=sys.stderr)
    print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
