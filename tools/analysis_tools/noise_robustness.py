"""Test classifiers on images with Gaussian noise of several variances, and print a table.

    python tools/analysis_tools/noise_robustness.py CONFIG CHECKPOINT [CONFIG CHECKPOINT …] \\
        [--variances 0 0.01 0.05]

Variances refer to pixels scaled to [0, 1]. All networks see the same noise on the same image. The
noise is added by the transform mmwcc.GaussianNoise of the test pipeline. If the pipeline has none,
it is inserted before the last transform.
"""

from __future__ import annotations

import argparse

from mmengine.config import Config

from mmwcc.registry import type_name
from mmwcc.utils import LaunchError, build_runner, check_checkpoint, load_config, one_line_errors

VARIANCES = (0.0, 0.01, 0.02, 0.05, 0.1)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Test classifiers on noisy images.')
    parser.add_argument(
        'networks', nargs='+', metavar='CONFIG CHECKPOINT', help='pairs of config and checkpoint'
    )
    parser.add_argument(
        '--variances', type=float, nargs='+', default=list(VARIANCES), help='variances of the noise'
    )
    parser.add_argument(
        '--metric', default='accuracy/top1', help='result to print; accuracy/top1 by default'
    )
    parser.add_argument('--work-dir', default='work_dirs/noise', help='folder for the logs')
    parser.add_argument('--data-root', help='folder of the data, instead of that of the config')
    args = parser.parse_args(argv)
    if len(args.networks) % 2:
        parser.error(f'every config needs a checkpoint after it, got {len(args.networks)} names')
    if min(args.variances) < 0:
        parser.error(f'--variances must not be negative, got {min(args.variances):g}')
    return args


def set_noise(cfg: Config, variance: float) -> None:
    """Set the noise of the test pipeline of a config, in place."""
    pipeline = cfg.test_dataloader.dataset.pipeline
    steps = [step for step in pipeline if type_name(step['type']) == 'mmwcc.GaussianNoise']
    if not steps:
        pipeline.insert(len(pipeline) - 1, dict(type='mmwcc.GaussianNoise', variance=variance))
    for step in steps:
        step['variance'] = variance


def measure(config: str, checkpoint: str, variance: float, args: argparse.Namespace) -> float:
    """Return the result of one network at one variance."""
    cfg = load_config(config)
    set_noise(cfg, variance)
    cfg.work_dir, cfg.load_from = args.work_dir, checkpoint
    if args.data_root:
        cfg.test_dataloader.dataset.data_root = args.data_root
    results = build_runner(cfg).test()
    if args.metric not in results:
        raise LaunchError(
            f'--metric must be one of {sorted(results)} for {config}, got {args.metric}.'
        )
    return results[args.metric]


def table(rows: dict[str, list[float]], variances: list[float]) -> str:
    """Return a Markdown table."""
    lines = [
        '| network | ' + ' | '.join(f'{variance:g}' for variance in variances) + ' |',
        '|---' * (len(variances) + 1) + '|',
    ]
    lines += [
        f'| {name} | ' + ' | '.join(f'{value:.2f}' for value in values) + ' |'
        for name, values in rows.items()
    ]
    return '\n'.join(lines)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    pairs = list(zip(args.networks[::2], args.networks[1::2], strict=True))
    for _, checkpoint in pairs:
        check_checkpoint(checkpoint)
    rows = {
        config: [measure(config, checkpoint, variance, args) for variance in args.variances]
        for config, checkpoint in pairs
    }
    print(f'\n{args.metric} by variance of the noise\n\n{table(rows, args.variances)}')


if __name__ == '__main__':
    with one_line_errors('noise_robustness.py'):
        main()
