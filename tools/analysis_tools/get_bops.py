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

from mmengine.config import Config, DictAction

from mmwcc.compression import Gain
from mmwcc.cost import CONVENTIONS, count_cost
from mmwcc.model_tree import compressed_layers, layer_progress
from mmwcc.reports import build_with_report, image_shape
from mmwcc.utils import LaunchError, load_config, one_line_errors, quiet


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description='Count MACs, bit operations, parameters and bytes of a model'
    )
    parser.add_argument(
        'config',
        help='config file of mmsegmentation, mmdetection or this project, or its hub path, '
        'as in mmseg::pspnet/NAME.py',
    )
    parser.add_argument(
        '--shape',
        nargs='+',
        type=int,
        metavar='N',
        help='height and width of an image as the network sees it, one number for a square, or '
        'channels, height and width; defaults to crop_size of the config, or else to the size '
        'of its test images',
    )
    parser.add_argument(
        '--convention',
        choices=CONVENTIONS,
        default='exact',
        help='count what is computed, or by the formulas of the paper (default: exact)',
    )
    parser.add_argument('--out', metavar='FILE.json', help='also write the report as JSON')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='change the config, for example model.compression.pointwise.keep_ratio=0.1',
    )
    args = parser.parse_args(argv)
    if args.out is not None and not args.out.endswith('.json'):
        parser.error(f'--out must end in .json, got {args.out}')
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
