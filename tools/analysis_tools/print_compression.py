"""Print what compression does to every convolution of a config's model, and what it gains.

The model is built from the config alone. No weights are downloaded or loaded, and no data is
needed.

    python tools/analysis_tools/print_compression.py CONFIG
    python tools/analysis_tools/print_compression.py DENSE_CONFIG --preset wcc_w8a8_k25
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from mmengine.config import Config
from torch import nn

from mmwcc.compression import expected_gain
from mmwcc.model_tree import CompressionReport, compressed_layers
from mmwcc.presets import compress, preset_names
from mmwcc.reports import build_with_report, image_shape
from mmwcc.utils import arguments, load_config, model_config, one_line_errors, quiet


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description='Print what compression makes of each convolution of a model, and the gain'
    )
    arguments.add_hub_config(parser)
    parser.add_argument(
        '--preset',
        metavar='NAME',
        help=f'show what a preset would do to a dense config: {", ".join(preset_names())}',
    )
    arguments.add_shape(
        parser,
        'count what is gained for an image of this height and width, as the network sees it',
    )
    arguments.add_report_options(parser)
    args = parser.parse_args(argv)
    arguments.require_ending(parser, args, '.json')
    return args


def report_compression(
    config: Config, preset: str | None = None
) -> tuple[nn.Module, CompressionReport]:
    """Build the model of a config and report on its convolutions.

    Args:
        config: A config, dense or compressed.
        preset: Name of a preset to apply to a dense model. Defaults to None.

    Returns:
        The model and the report.

    Raises:
        LaunchError: If the config has no ``model``.
        ValueError: If there is no such preset, the model is compressed already, or the compression
            does not fit it.
    """
    if preset is not None:
        config = Config({**config.to_dict(), 'model': compress(model_config(config), preset)})
    return build_with_report(config)


def add_gain(
    model: nn.Module, report: CompressionReport, shape: tuple[int, ...] | None, asked: bool
) -> str:
    """Add what the compression gains to its report, and return why that is not known, or ''.

    Args:
        model: The model.
        report: The report.
        shape: Shape of an image, or None if it is not known.
        asked: Whether the user gave the shape, so that a failure is an error.

    Raises:
        ValueError: If the model cannot run on an image of the shape that the user gave.
    """
    if not compressed_layers(model):
        return ''
    if shape is None:
        return (
            'The config names no size of images. Give --shape HEIGHT WIDTH to see what is gained.'
        )
    try:
        report.gain = expected_gain(model, shape)
    except ValueError as error:
        if asked:
            raise
        return f'What is gained could not be counted: {error}'
    return ''


def main(argv: list[str] | None = None) -> None:
    """Print the report."""
    args = parse_args(argv)
    with one_line_errors('print_compression', ValueError, TypeError), quiet():
        config = load_config(args.config, args.cfg_options)
        model, report = report_compression(config, args.preset)
        unknown = add_gain(model, report, image_shape(config, args.shape), bool(args.shape))
    print(
        f'{type(model).__name__} of {args.config}'
        + (f' with preset {args.preset}' if args.preset else '')
    )
    print(report)
    if unknown:
        print(unknown)
    if args.out is not None:
        content = dict(
            config=args.config,
            preset=args.preset,
            model=type(model).__name__,
            summary=report.summary(),
            layers=report.to_dicts(),
            warning=report.warning,
            unhandled=[asdict(layers) for layers in report.unhandled],
            gain=None if report.gain is None else report.gain.to_dict(),
        )
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        Path(args.out).write_text(json.dumps(content, indent=2) + '\n')


if __name__ == '__main__':
    main()
