"""Measure the map of worth: where a wavelet compressed convolution beats nn.Conv2d on a CPU.

Times both layers on this machine over a grid of input channels, output channels, square feature
maps and keep ratios (3 levels, float32, batch 1, inference). Each is timed in both memory formats,
and the faster one counts. The resulting table is what `only_if_faster` of the compression config
uses. The one that is shipped with mmwcc is written by

    python tools/benchmarks/layer_map.py --out mmwcc/compression/speed_cpu.json
"""

from __future__ import annotations

from itertools import product

import measuring
import torch
from measuring import FORMATS, fastest
from torch import nn
from wcc_layer import gate_layer

from mmwcc.layers import WaveletCompressedConv2d

CHANNELS = (24, 96, 320, 1024)
SIZES = (16, 32, 64, 128)
KEEP = (1.0, 0.5, 0.25, 0.125)
LEVELS = 3


def measure(channels: int, out: int, size: int, args) -> dict:
    """Time one point of the map."""
    dense = nn.Conv2d(channels, out, 1, bias=False)
    layers = {
        f'k{ratio:g}': WaveletCompressedConv2d.from_conv2d(dense, keep_ratio=ratio, levels=LEVELS)
        for ratio in args.keep
    }
    images = {
        name: torch.randn(1, channels, size, size).to(memory_format=format)
        for name, format in FORMATS.items()
    }
    calls = {
        f'{name} {format}': measuring.forward(layer, x)
        for name, layer in dict(dense=dense, **layers).items()
        for format, x in images.items()
    }
    times = measuring.medians(calls, args.seconds)
    best = {name: fastest(times, name) for name in ('dense', *layers)}
    return dict(
        channels=channels,
        out=out,
        size=size,
        milliseconds=best,
        speedup={name: best['dense'] / best[name] for name in layers},
    )


def main() -> None:
    parser = measuring.arguments(__doc__, seconds=0.3)
    parser.add_argument(
        '--channels', type=int, nargs='+', default=CHANNELS, help='input and output channels'
    )
    parser.add_argument(
        '--sizes', type=int, nargs='+', default=SIZES, help='heights and widths of the maps'
    )
    parser.add_argument('--keep', type=float, nargs='+', default=KEEP, help='keep ratios')
    args = parser.parse_args()
    about = measuring.begin(args, batch=1, levels=LEVELS)
    for channels, ratio in product(args.channels, args.keep):
        size = args.sizes[0]
        gate_layer(
            nn.Conv2d(channels, channels, 1, bias=False),
            torch.randn(1, channels, size, size),
            ratio,
        )
    rows = []
    for channels, out, size in product(args.channels, args.channels, args.sizes):
        rows.append(measure(channels, out, size, args))
        shown = '  '.join(f'{name} x{ratio:.2f}' for name, ratio in rows[-1]['speedup'].items())
        dense = rows[-1]['milliseconds']['dense']
        print(
            f'{channels:>4} -> {out:<4} {size:>3}x{size:<3}  dense {dense:8.3f} ms  {shown}',
            flush=True,
        )
    measuring.write(args.out, 'layer_map', about, rows)


if __name__ == '__main__':
    measuring.keep_freed_memory()
    main()
