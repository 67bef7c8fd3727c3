"""Compare two trainings over several seeds.

    python tools/analysis_tools/compare_seeds.py accuracy/top1 --runs work_dirs/a-seed{0,1,2} \\
        --against work_dirs/b-seed{0,1,2}

Prints the mean and standard error of each training, and of the gap between them. The result of a
folder is its newest test or, without a test, its last validation. Runs are paired in the order in
which they are given, so list the same seeds in the same order.
"""

from __future__ import annotations

import argparse
import math
import statistics

from mmwcc.reports import read_work_dir
from mmwcc.utils import one_line_errors

# Quantiles of Student's t for a 95 % interval, by degrees of freedom; for more, use the normal's.
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description='Compare two trainings over several seeds')
    parser.add_argument('metric', help='name of the result, for example accuracy/top1 or mIoU')
    parser.add_argument(
        '--runs', nargs='+', required=True, metavar='DIR', help='work folders of the one training'
    )
    parser.add_argument(
        '--against', nargs='+', required=True, metavar='DIR', help='work folders of the other'
    )
    args = parser.parse_args(argv)
    if len(args.runs) != len(args.against) or len(args.runs) < 2:
        parser.error(
            '--runs and --against must name equally many folders, at least 2, got '
            f'{len(args.runs)} and {len(args.against)}'
        )
    return args


def result(folder: str, metric: str) -> float:
    """Return the value of a metric in a work folder.

    It comes from the newest test or, without a test, from the last validation.

    Raises:
        FileNotFoundError: If the folder is not a work folder.
        ValueError: If it has no such metric.
    """
    work_dir = read_work_dir(folder)
    value = work_dir.result(metric)
    if value is None:
        raise ValueError(
            f'metric must be one of {", ".join(work_dir.metric_names()) or "none"}, got '
            f'{metric!r}. {folder} does not have it.'
        )
    return value


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Return the mean and its standard error."""
    return statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values))


def report(runs: list[float], against: list[float]) -> str:
    """Return both series, the gap between them, and whether it differs from zero."""
    gaps = [ours - theirs for ours, theirs in zip(runs, against, strict=True)]
    lines = []
    for name, values in (('runs', runs), ('against', against), ('gap', gaps)):
        mean, error = mean_and_error(values)
        lines.append(
            f'{name:8} {mean:8.3f} +- {error:.3f}   '
            f'({", ".join(f"{value:.3f}" for value in values)})'
        )
    freedom = len(gaps) - 1
    reach = (STUDENT[freedom - 1] if freedom <= len(STUDENT) else 1.96) * error
    differs = abs(mean) > reach
    lines.append(
        f'95 % interval of the gap: {mean - reach:.3f} to {mean + reach:.3f}; '
        f'{"it excludes" if differs else "it includes"} zero'
    )
    return '\n'.join(lines)


def main(argv: list[str] | None = None) -> None:
    """Print the comparison that the command line asks for."""
    args = parse_args(argv)
    with one_line_errors('compare_seeds', FileNotFoundError, ValueError):
        series = [
            [result(folder, args.metric) for folder in folders]
            for folders in (args.runs, args.against)
        ]
    print(report(*series))


if __name__ == '__main__':
    main()
