"""Measure how well feature maps survive compression by wavelets and by uniform quantization.

    python tools/analysis_tools/compression_error.py CONFIG CHECKPOINT

Runs images of the test set through the trained network, and compresses the inputs of its 1x1
convolutions in both ways. Writes compression_error.png and compression_error.csv, which show the
error over effective bits.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

import torch
from mmengine.config import DictAction

from mmwcc.diagnostics import WAVELET, CompressionErrors, measure_errors, plot_errors, write_errors
from mmwcc.functional import check_compression
from mmwcc.utils import load_config, load_trained, one_line_errors, quiet, spread_batches


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description='Measure how well feature maps survive compression'
    )
    parser.add_argument(
        'config', help='config file, of mmsegmentation, mmdetection or this project'
    )
    parser.add_argument('checkpoint', help='checkpoint of the trained network, dense or compressed')
    parser.add_argument(
        '--images', type=int, default=16, help='number of test images, evenly spread; 16 by default'
    )
    parser.add_argument(
        '--bits', type=int, nargs='+', default=[1, 2, 3, 4, 6, 8], help='widths of quantization'
    )
    parser.add_argument(
        '--keep-ratios',
        type=float,
        nargs='+',
        default=[0.0625, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0],
        help='fractions of the wavelet coefficients to keep',
    )
    parser.add_argument(
        '--coefficient-bits', type=int, default=8, help='width of kept coefficients; 8 by default'
    )
    parser.add_argument(
        '--levels', type=int, default=3, help='depth of the transform; 3 by default'
    )
    parser.add_argument(
        '--wavelet', default='haar', help='wavelet of the transform; haar by default'
    )
    parser.add_argument(
        '--out-dir', type=Path, default=Path('work_dirs/compression_error'), help='where to write'
    )
    parser.add_argument('--device', default='cpu', help='device to run on; cpu by default')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='change the config, as in testing'
    )
    args = parser.parse_args(argv)
    if args.images < 1:
        parser.error(f'--images must be at least 1, got {args.images}')
    if not all(1 <= bits <= 16 for bits in args.bits):
        parser.error(f'--bits must be in 1 ... 16, got {args.bits}')
    if args.coefficient_bits not in (*range(2, 17), 32):
        parser.error(f'--coefficient-bits must be in 2 ... 16 or 32, got {args.coefficient_bits}')
    try:
        for keep_ratio in args.keep_ratios:
            check_compression(
                'compression_error',
                keep_ratio=keep_ratio,
                levels=args.levels,
                wavelet=args.wavelet,
                selection='energy',
            )
    except ValueError as error:
        parser.error(str(error))
    return args


def table(errors: CompressionErrors) -> str:
    """Return MSE / mean square as a Markdown table.

    It has the mean over all layers, and the mean over the layers of each map size.
    """
    sizes = sorted(set(errors.sizes.values()), key=lambda size: -size[0] * size[1])
    heads = [
        f'{width}x{height} ({list(errors.sizes.values()).count((height, width))})'
        for height, width in sizes
    ]
    lines = [
        f'| method | effective bits | all layers ({len(errors.layers)}) | {" | ".join(heads)} |',
        '|---' * (3 + len(sizes)) + '|',
    ]
    for setting in errors.settings:
        width = '1 bit' if setting.bits == 1 else f'{setting.bits} bits'
        kept = f', {100 * setting.keep_ratio:g} % kept' if setting.method == WAVELET else ''
        cells = [f'{mean(errors.relative(setting, size)):.2g}' for size in (None, *sizes)]
        lines.append(
            f'| {setting.method}, {width}{kept} | {setting.effective_bits:g} | '
            f'{" | ".join(cells)} |'
        )
    return '\n'.join(lines)


def main(argv: list[str] | None = None) -> None:
    """Measure, write and print."""
    args = parse_args(argv)
    with one_line_errors('compression_error', ValueError), quiet():
        config = load_config(args.config, args.cfg_options)
        model, _ = load_trained(config, args.checkpoint)
        errors = measure_errors(
            model.to(torch.device(args.device)),
            spread_batches(config, args.images, progress='compression_error'),
            args.bits,
            args.keep_ratios,
            coefficient_bits=args.coefficient_bits,
            levels=args.levels,
            wavelet=args.wavelet,
        )
    args.out_dir.mkdir(parents=True, exist_ok=True)
    write_errors(errors, args.out_dir / 'compression_error.csv')
    plot_errors(
        errors,
        args.out_dir / 'compression_error.png',
        f'{Path(args.config).stem}, {errors.images} images',
    )
    print(
        f'MSE / mean square of the maps that go into 1x1 convolutions, {errors.images} images; in '
        f'brackets: layers'
    )
    print(f'\n{table(errors)}\n')
    if errors.left_out:
        print(
            f'left out, with maps smaller than {2**args.levels} pixels: '
            f'{", ".join(errors.left_out)}'
        )
    print(
        f'wrote {args.out_dir / "compression_error.png"} and '
        f'{args.out_dir / "compression_error.csv"}'
    )


if __name__ == '__main__':
    main()
