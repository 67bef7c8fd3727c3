"""Compress a dense checkpoint without training, and evaluate it.

    python tools/analysis_tools/calibrate.py CONFIG CHECKPOINT
    python tools/analysis_tools/calibrate.py DENSE_CONFIG CHECKPOINT --compression wcc_w8a8_k25

The clips are learned from a few training images. Writes the compressed checkpoint and its config,
for use with tools/test.py and tools/train.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmengine.config import Config

from mmwcc.checkpoint import save_checkpoint
from mmwcc.compression import compress_model
from mmwcc.post_training import calibrate, reestimate_batch_norm
from mmwcc.presets import compress, preset_names
from mmwcc.progress import track
from mmwcc.quantizers import CALIBRATIONS
from mmwcc.utils import (
    arguments,
    build_runner,
    calibration_batches,
    dense_config,
    load_config,
    load_trained,
    model_config,
    one_line_errors,
    quiet,
    set_work_dir,
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description='Compress a dense checkpoint without training, and evaluate it'
    )
    arguments.add_dense_network(parser)
    arguments.add_compression(parser, preset_names())
    arguments.add_images(parser, 16, 8, 'calibration')
    parser.add_argument(
        '--method', choices=CALIBRATIONS, help='how to choose clips; as the config says by default'
    )
    parser.add_argument('--percentile', type=float, help='for --method percentile, in percent')
    parser.add_argument(
        '--keep-batch-norm',
        action='store_true',
        help='leave the statistics of BatchNorm as they were trained',
    )
    parser.add_argument(
        '--out', metavar='FILE.pth', help='checkpoint to write; WORK_DIR/calibrated.pth by default'
    )
    parser.add_argument(
        '--work-dir', help='folder for the metrics; ./work_dirs/<config name> by default'
    )
    parser.add_argument('--no-test', action='store_true', help='do not evaluate')
    parser.add_argument('--device', default='cpu', help='where to calibrate; cpu by default')
    arguments.add_cfg_options(parser, 'change the config, as in training')
    args = parser.parse_args(argv)
    arguments.require_at_least_one(parser, args, 'images', 'batch_size')
    arguments.require_ending(parser, args, '.pth')
    return args


def compress_checkpoint(config: Config, args: argparse.Namespace) -> Path:
    """Calibrate the compressed model of a config on the weights of a dense checkpoint, and save it.

    Returns:
        Path of the checkpoint that was written; its config lies next to it.

    Raises:
        LaunchError: If the config is not compressed or has no data, or the checkpoint does not fit.
        ValueError: If the compression does not fit the model, or quantizes nothing.
    """
    dense, compression = dense_config(config)
    batches = list(
        calibration_batches(config, args.images, args.batch_size, progress='reading images')
    )
    model, loaded = load_trained(dense, args.checkpoint)
    compress_model(model.to(args.device), compression, verbose=False)
    seen = track(batches, 'clips', 'batches')
    print(calibrate(model, seen, method=args.method, percentile=args.percentile))
    if not args.keep_batch_norm:
        norms = reestimate_batch_norm(model, track(batches, 'BatchNorm', 'batches'))
        print(f'statistics of {norms} BatchNorm layers estimated again')
    out = Path(args.out or Path(config.work_dir) / 'calibrated.pth')
    save_checkpoint(model.cpu(), config, out, loaded.get('meta'))
    print(f'wrote {out} and {out.with_suffix(".py")}')
    return out


def main(argv: list[str] | None = None) -> dict:
    """Calibrate, save and evaluate; return the metrics."""
    args = parse_args(argv)
    with one_line_errors('calibrate', ValueError, TypeError), quiet():
        config = load_config(args.config, args.cfg_options)
        if args.compression is not None:
            config.model = compress(model_config(config), args.compression)
        set_work_dir(config, args.work_dir)
        config.load_from, config.resume = None, False
        out = compress_checkpoint(config, args)
    if args.no_test:
        return {}
    config.load_from = str(out)
    return build_runner(config).test()


if __name__ == '__main__':
    main()
