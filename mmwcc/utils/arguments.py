"""Options that several command lines have, with the same words in the help of all of them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from mmengine.config import DictAction

__all__ = [
    'add_cfg_options',
    'add_compression',
    'add_dense_network',
    'add_hub_config',
    'add_images',
    'add_launch_options',
    'add_report_options',
    'add_shape',
    'parse_launched',
    'require_at_least_one',
    'require_ending',
]

_SETTINGS = (
    "change settings of the config: a.b=1 c='[1,2]' d='[(1,2),(3,4)]' (no spaces in a value)"
)


def add_cfg_options(parser: argparse.ArgumentParser, help: str, metavar: str | None = None) -> None:
    """Add ``--cfg-options``, which change the config."""
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar=metavar, help=help)


def add_launch_options(parser: argparse.ArgumentParser, settings: str = _SETTINGS) -> None:
    """Add what every program that starts a runner has: settings, the launcher, its rank.

    Args:
        parser: The parser. Parse with :func:`parse_launched`.
        settings: The help of ``--cfg-options``. Defaults to that for one config.
    """
    add_cfg_options(parser, settings, 'KEY=VALUE')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher',
    )
    # torch.distributed.launch passes --local-rank, and --local_rank before torch 2.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def parse_launched(
    parser: argparse.ArgumentParser, argv: list[str] | None = None
) -> argparse.Namespace:
    """Parse a command line with a launcher, and set LOCAL_RANK where the launcher did not."""
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def add_dense_network(parser: argparse.ArgumentParser) -> None:
    """Add the config and the checkpoint of a network that is to be compressed."""
    parser.add_argument('config', help='compressed config, or a dense one with --compression')
    parser.add_argument('checkpoint', help='checkpoint of the dense model')


def add_compression(parser: argparse.ArgumentParser, presets: Sequence[str]) -> None:
    """Add ``--compression``, one of the presets, for a config that is dense."""
    parser.add_argument(
        '--compression',
        metavar='PRESET',
        choices=presets,
        help=f'how to compress a dense config: {", ".join(presets)}',
    )


def add_images(parser: argparse.ArgumentParser, number: int, batch_size: int, purpose: str) -> None:
    """Add ``--images`` and ``--batch-size``.

    Args:
        parser: The parser.
        number: The number of images by default.
        batch_size: The largest number in a batch by default.
        purpose: Which images they are, as 'calibration'.
    """
    parser.add_argument(
        '--images',
        type=int,
        default=number,
        help=f'number of {purpose} images; {number} by default',
    )
    parser.add_argument(
        '--batch-size',
        type=int,
        default=batch_size,
        help=f'images in a batch; {batch_size} by default',
    )


def add_hub_config(parser: argparse.ArgumentParser) -> None:
    """Add a config that may be another package's."""
    parser.add_argument(
        'config',
        help='config file of mmsegmentation, mmdetection or this project, or its hub path, '
        'as in mmseg::pspnet/NAME.py',
    )


def add_shape(parser: argparse.ArgumentParser, purpose: str) -> None:
    """Add ``--shape``, for :func:`mmwcc.reports.image_shape`; its help begins with the purpose."""
    parser.add_argument(
        '--shape',
        nargs='+',
        type=int,
        metavar='N',
        help=f'{purpose}, one number for a square, or channels, height and width; defaults to '
        'crop_size of the config, or else to the size of its test images',
    )


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--out``, a JSON file for the report that is printed, and ``--cfg-options``."""
    parser.add_argument('--out', metavar='FILE.json', help='also write the report as JSON')
    add_cfg_options(
        parser, 'change the config, for example model.compression.pointwise.keep_ratio=0.1'
    )


def require_at_least_one(
    parser: argparse.ArgumentParser, args: argparse.Namespace, *names: str
) -> None:
    """End the program if one of these options, named as attributes, is less than 1."""
    for name in names:
        if getattr(args, name) < 1:
            option = f'--{name.replace("_", "-")}'
            parser.error(f'{option} must be at least 1, got {getattr(args, name)}')


def require_ending(parser: argparse.ArgumentParser, args: argparse.Namespace, ending: str) -> None:
    """End the program if ``--out`` is given and does not have an ending, as '.json'."""
    if args.out is not None and not args.out.endswith(ending):
        parser.error(f'--out must end in {ending}, got {args.out}')
