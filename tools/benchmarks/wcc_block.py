"""Time the inverted residual block of the paper's Table 8 on this machine's CPU.

A block is a 1x1 expansion, a depthwise 3x3, a 1x1 projection and the residual, without activations,
as in the paper. Each compressed block is compared with the dense one. Next to its speed-up, the
table shows the paper's, measured on a GPU with the paper's batch size, and the floor. For the
floor,
each kernel of both blocks is assumed to run at this machine's copy speed or product speed,
whichever takes longer; the floor is the ratio of the two block times. A row passes if it reaches
the paper's speed-up or 75 % of the floor, whichever is less.

    python tools/benchmarks/wcc_block.py [--batch 1] [--rows 0 2 5] [--layers] [--compile] \\
        [--out wcc_block_cpu.json]
"""

from __future__ import annotations

from functools import partial
from itertools import groupby

import measuring
import torch
from measuring import FORMATS, fastest, gate, kernel_time, relative_error
from table8 import ROWS, Row
from torch import Tensor, nn

from mmwcc.inference import FoldedConv, FusedInvertedResidual
from mmwcc.layers import WaveletCompressedConv2d

LEVELS = 3
SHARE_OF_FLOOR = 0.75


class Block(nn.Module):
    """The block of three layers, whose 1x1 convolutions may be compressed."""

    def __init__(self, expand: nn.Module, depthwise: nn.Module, project: nn.Module) -> None:
        super().__init__()
        self.expand, self.depthwise, self.project = expand, depthwise, project

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(self.depthwise(self.expand(x)))


def dense_block(channels: int, expansion: int) -> Block:
    """Build the block of a table row."""
    wide = channels * expansion
    return Block(
        nn.Conv2d(channels, wide, 1, bias=False),
        nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False),
        nn.Conv2d(wide, channels, 1, bias=False),
    )


def layer_by_layer(dense: Block, keep_ratio: float) -> Block:
    """Build the block with compressed layers, which share the weights of ``dense``."""
    expand, project = (
        WaveletCompressedConv2d.from_conv2d(conv, keep_ratio=keep_ratio, levels=LEVELS)
        for conv in (dense.expand, dense.project)
    )
    return Block(expand, dense.depthwise, project)


def fused(dense: Block, keep_ratio: float) -> FusedInvertedResidual:
    """Build the fused block, with the weights of ``dense``."""
    return FusedInvertedResidual(
        *map(FoldedConv, layer_by_layer(dense, keep_ratio).children()), residual=True
    )


def gate_block(dense: Block, x: Tensor, keep_ratios: list[float]) -> None:
    """Stop unless the fused block computes the right result.

    At keep_ratio=1 this is the result of the dense block, and below it that of compressed layers.
    """
    with torch.no_grad():
        gate(
            'keep_ratio=1 must equal the dense block',
            relative_error(fused(dense, 1.0)(x), dense(x)),
            1e-5,
        )
        # A small map, so that no two positions are equal up to rounding.
        small = x[:, :, :16, :16].contiguous()
        for ratio in keep_ratios:
            expected = layer_by_layer(dense, ratio)(small)
            gate(
                f'the fused block must equal the layers at {ratio:g}',
                relative_error(fused(dense, ratio)(small), expected),
                1e-5,
            )


def floor_ratio(row: Row, rates: dict[str, float]) -> float:
    """Return the ratio of dense to compressed time if all kernels run at the machine's rates.

    The blocks are in float32. The dense block has three kernels. The compressed one has six:
    transform; product of the kept rows; inverse; depthwise with transform; product; inverse with
    residual. The time to select positions is not counted. Both times scale with the batch, which
    cancels.
    """
    pixels, channels, wide = row.size**2, row.channels, row.channels * row.expansion
    kept, kernel = row.keep_ratio * pixels, partial(kernel_time, rates)
    dense = (
        kernel(pixels * (channels + wide), pixels * channels * wide)
        + kernel(2 * pixels * wide)
        + kernel(pixels * (wide + 2 * channels), pixels * channels * wide)
    )
    product = kernel(kept * (channels + wide), kept * channels * wide)
    compressed = (
        kernel(2 * pixels * channels)
        + product
        + kernel(kept * wide + pixels * wide)
        + kernel(2 * pixels * wide)
        + product
        + kernel(kept * channels + 2 * pixels * channels)
    )
    return dense / compressed


def required_ratio(row: Row, floor: float) -> float:
    """Return the speed-up that a row must reach."""
    return min(row.paper, SHARE_OF_FLOOR * floor)


def measure(
    shape: tuple[int, int, int], rows: list[Row], rates: dict[str, float], args
) -> list[dict]:
    """Time one block, dense and at every keep ratio in the table."""
    size, channels, expansion = shape
    dense = dense_block(channels, expansion)
    blocks = {'dense': dense}
    for row in rows:
        blocks[f'k{row.keep_ratio:g}'] = fused(dense, row.keep_ratio)
        if args.layers:
            blocks[f'layers k{row.keep_ratio:g}'] = layer_by_layer(dense, row.keep_ratio)
    if args.compile:
        torch._dynamo.reset()
        blocks['compiled dense'] = torch.compile(dense)
    images = {
        name: torch.randn(args.batch, channels, size, size).to(memory_format=format)
        for name, format in FORMATS.items()
    }
    gate_block(dense, images['channels_last'][:1], [row.keep_ratio for row in rows])
    times = measuring.medians(
        {
            f'{name} {format}': measuring.forward(block, x)
            for name, block in blocks.items()
            for format, x in images.items()
        },
        args.seconds,
    )
    return [result(row, times, floor_ratio(row, rates), args.batch) for row in rows]


def result(row: Row, times: dict[str, float], floor: float, batch: int) -> dict:
    """Print and return one row: the measured speed-up and the required one."""
    name, best, required = (
        f'k{row.keep_ratio:g}',
        fastest(times, 'dense'),
        required_ratio(row, floor),
    )
    speedup = best / fastest(times, name)
    passed = speedup >= required
    print(
        f'{row.size:>3}x{row.size:<3} {row.channels:>4} x{row.expansion} '
        f'{100 * row.keep_ratio:>5g} %  dense {best:8.1f} ms  paper x{row.paper:.2f}  ours '
        f'x{speedup:.2f}  floor x{floor:.2f}  required x{required:.2f}  '
        f'{"pass" if passed else "FAIL"}',
        flush=True,
    )
    shown = {
        key: value for key, value in times.items() if 'dense' in key or key.split()[-2] == name
    }
    more = {
        key: best / fastest(times, key)
        for key in (f'layers {name}', 'compiled dense')
        if any(time.startswith(key) for time in times)
    }
    return {
        **row._asdict(),
        'batch': batch,
        'milliseconds': shown,
        'speedup': {name: speedup, **more},
        'floor': floor,
        'required': required,
        'passed': passed,
    }


def main() -> None:
    parser = measuring.arguments(__doc__, seconds=1.0)
    parser.add_argument('--batch', type=int, default=1, help='images; the paper used 2 to 80')
    parser.add_argument(
        '--rows', type=int, nargs='+', help='rows of the table, from 0; all by default'
    )
    parser.add_argument(
        '--layers', action='store_true', help='also the unfused block of single compressed layers'
    )
    parser.add_argument(
        '--compile', action='store_true', help='also torch.compile of the dense block'
    )
    args = parser.parse_args()
    about = measuring.begin(args, batch=args.batch)
    rates = measuring.machine_rates()
    print(
        f'copy {rates["copy"] / 1e9:.1f} GB/s, float32 product {rates["float32"] / 1e9:.0f} GFLOP/s'
    )
    table = [row for index, row in enumerate(ROWS) if args.rows is None or index in args.rows]
    rows = [
        entry
        for shape, group in groupby(table, key=lambda row: row[:3])
        for entry in measure(shape, list(group), rates, args)
    ]
    mean = measuring.geometric_mean(row['speedup'][f'k{row["keep_ratio"]:g}'] for row in rows)
    failed = sum(not row['passed'] for row in rows)
    print(f'geometric mean x{mean:.2f}; {len(rows) - failed} of {len(rows)} rows pass')
    measuring.write(args.out, 'wcc_block', about, rows, rates=rates, geometric_mean=mean)


if __name__ == '__main__':
    measuring.keep_freed_memory()
    main()
