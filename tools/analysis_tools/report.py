"""Compare trained models on one HTML page: accuracy, cost, latency, layers, curves and predictions.

    python tools/analysis_tools/report.py work_dirs/dense work_dirs/quant work_dirs/wcc --out report.html

The page can be read offline. The other work folders are compared with the first one.
"""

from __future__ import annotations

import argparse

from mmwcc.reports import read_work_dir, write_report
from mmwcc.utils import one_line_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description='Compare trained models on one HTML page')
    parser.add_argument(
        'work_dirs',
        nargs='+',
        metavar='WORK_DIR',
        help='work folder of a training, the dense one first',
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
        help='input that the cost is counted for; by default the test images of each config',
    )
    parser.add_argument(
        '--pictures', type=int, default=6, help='example pictures of each model, at most'
    )
    args = parser.parse_args(argv)
    if not args.out.endswith(('.html', '.htm')):
        parser.error(f'--out must end in .html, got {args.out}')
    return args


def main(argv: list[str] | None = None) -> None:
    """Write the page that the command line asks for."""
    args = parse_args(argv)
    with one_line_errors('report', OSError, ValueError):
        write_report(
            [read_work_dir(path) for path in args.work_dirs],
            args.out,
            title=args.title,
            metric=args.metric,
            shape=args.shape,
            pictures=args.pictures,
        )
    print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
