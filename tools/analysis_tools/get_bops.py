"""Count MACs, bit operations, parameters and bytes of a config's model, layer by layer.

For a compressed model, the last lines say what the compression gains.

The model is built from the config alone. No weights are downloaded or loaded, and no data is
needed.

    python tools/analysis_tools/get_bops.py CONFIG --shape 512 1024
    python tools/analysis_tools/get_bops.py CONFIG --convention paper --out cost.json

docs/cost.md explains how costs are counted.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mmengine.config import Config

from mmwcc.compression import Gain
from mmwcc.cost import CONVENTIONS, count_cost
from mmwcc.model_tree import compressed_layers, layer_progress
from mmwcc.reports import build_with_report, image_shape
from mmwcc.utils import LaunchError, arguments, load_config, one_line_errors, quiet


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description='Count MACs, bit operations, parameters and bytes of a model'
    )
    arguments.add_hub_config(parser)
    arguments.add_shape(parser, 'height and width of an image as the network sees it')
    parser.add_argument(
        '--convention',
        choices=CONVENTIONS,
        default='exact',
        help='count what is computed, or by the formulas of the paper (default: exact)',
    )
    arguments.add_report_options(parser)
    args = parser.parse_args(argv)
    arguments.require_ending(parser, args, '.json')
    return args


def requested_shape(config: Config, shape: list[int] | None) -> tuple[int, ...]:
    """Return the requested shape or, without one, that of the images of the config.

    Raises:
        LaunchError: If there is neither.
    """
    found = image_shape(config, shape)
    if found is None:
        raise LaunchError(
            f'{config.filename} names no size of images: it has no `crop_size`, and its test '
            'pipeline no Resize. Give --shape HEIGHT WIDTH.'
        )
    return found


def main(argv: list[str] | None = None) -> None:
    """Count and print."""
    args = parse_args(argv)
    with one_line_errors('get_bops', ValueError, TypeError), quiet():
        config = load_config(args.config, args.cfg_options)
        shape = requested_shape(config, args.shape)
        model, _ = build_with_report(config)
        with layer_progress(model, 'get_bops'):
            report = count_cost(model, shape, convention=args.convention)
        gain = Gain.of(model, report) if compressed_layers(model) else None
    print(f'{type(model).__name__} of {args.config}')
    print(report)
    if gain is not None:
        print(gain)
    if args.out is not None:
        content = dict(config=args.config, model=type(model).__name__, **report.to_dict())
        content['gain'] = None if gain is None else gain.to_dict()
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        Path(args.out).write_text(json.dumps(content, indent=2) + '\n')


if __name__ == '__main__':
    main()
