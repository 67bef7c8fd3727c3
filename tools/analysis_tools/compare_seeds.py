"""Compare two trainings over several seeds: mean and standard error of each, and of the gap between them.

    python tools/analysis_tools/compare_seeds.py accuracy/top1 --runs work_dirs/a-seed{0,1,2} \\
        --against work_dirs/b-seed{0,1,2}

Runs are paired in the order they are given, so give equal seeds equal places.
"""
from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from pathlib import Path

# Quantiles of Student's t for an interval of 95 %, by degrees of freedom; the normal's beyond.
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description='Compare two trainings over several seeds')
    parser.add_argument('metric', help='name of the result, for example accuracy/top1 or mIoU')
    parser.add_argument('--runs', nargs='+', required=True, metavar='DIR', help='work folders of the one training')
    parser.add_argument('--against', nargs='+', required=True, metavar='DIR', help='work folders of the other')
    args = parser.parse_args(argv)
    if len(args.runs) != len(args.against) or len(args.runs) < 2:
        parser.error(f'--runs and --against must name equally many folders, at least 2, got {len(args.runs)} and '
                     f'{len(args.against)}')
    return args


def last_value(folder: Path, metric: str) -> float:
    """Return the last value of a metric in the newest log of a work folder.

    Raises:
        FileNotFoundError: If the folder has no log.
        KeyError: If the log has no such metric.
    """
    logs = sorted(folder.glob('*/vis_data/scalars.json'))
    if not logs:
        raise FileNotFoundError(f'compare_seeds: a work folder must hold TIME/vis_data/scalars.json, got none in '
                                f"{folder}. Train with mmengine's LocalVisBackend.")
    entries = [json.loads(line) for line in logs[-1].read_text().splitlines()]
    values = [entry[metric] for entry in entries if metric in entry]
    if not values:
        names = sorted({name for entry in entries for name in entry})
        raise KeyError(f"compare_seeds: the metric must be one of {', '.join(names)}, got {metric!r}. It is missing in "
                       f'{logs[-1]}.')
    return values[-1]


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Return the mean and its standard error."""
    return statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values))


def report(runs: list[float], against: list[float]) -> str:
    """Return both series, the gap between them, and whether it differs from zero."""
    gaps = [ours - theirs for ours, theirs in zip(runs, against, strict=True)]
    lines = []
    for name, values in (('runs', runs), ('against', against), ('gap', gaps)):
        mean, error = mean_and_error(values)
        lines.append(f"{name:8} {mean:8.3f} +- {error:.3f}   ({', '.join(f'{value:.3f}' for value in values)})")
    freedom = len(gaps) - 1
    reach = (STUDENT[freedom - 1] if freedom <= len(STUDENT) else 1.96) * error
    differs = abs(mean) > reach
    lines.append(f'95 % interval of the gap: {mean - reach:.3f} to {mean + reach:.3f}; '
                 f"{'it excludes' if differs else 'it includes'} zero")
    return '\n'.join(lines)


def main(argv: list[str] | None = None) -> None:
    """Print the comparison that the command line asks for."""
    args = parse_args(argv)
    try:
        series = [[last_value(Path(folder), args.metric) for folder in folders]
                  for folders in (args.runs, args.against)]
    except (FileNotFoundError, KeyError) as error:
        sys.exit(error.args[0])
    print(report(*series))


if __name__ == '__main__':
    main()
