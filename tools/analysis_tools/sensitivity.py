"""Measure how much compressing each layer changes the output, and allocate bit operations by it.

    python tools/analysis_tools/sensitivity.py DENSE_CONFIG CHECKPOINT --compression wcc_w8a8_k25 \\
        --budget wcc_w8a8_k25

A budget is the total for the network. It can be that of a preset, a fraction of the dense network's
(0.05 or 5%), or a number of bit operations (2e11). Several budgets can be given. Writes a YAML file
with the `compression` dictionary, a table and an image for each. Measuring takes minutes. The
measurements are kept in sensitivity.json, so that a second call can reuse them.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import nn

from mmwcc.cost import CostReport, count_cost
from mmwcc.model_tree import layer_progress
from mmwcc.post_training import (
    Allocation,
    Grid,
    MeasuredLayers,
    allocate,
    allocated_compression,
    budget_bops,
    budget_number,
    choosable,
    compressed_cost,
)
from mmwcc.presets import compress, preset, preset_names, quantizer_paramwise
from mmwcc.reports import plot_allocation
from mmwcc.utils import (
    arguments,
    calibration_batches,
    dense_config,
    load_config,
    load_trained,
    model_config,
    one_line_errors,
    quiet,
    write_compression,
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description='Allocate bits and keep ratios to layers under a budget'
    )
    arguments.add_dense_network(parser)
    parser.add_argument(
        '--budget',
        nargs='+',
        required=True,
        help='bit operations: those of a preset by its name, 0.05 or 5%% of the dense, or a number',
    )
    arguments.add_compression(parser, preset_names())
    arguments.add_images(parser, 4, 4, 'training')
    parser.add_argument(
        '--keep-batch-norm',
        action='store_true',
        help='the statistics of BatchNorm will not be estimated again after compression',
    )
    grid = Grid()
    parser.add_argument('--weight-bits', type=int, nargs='+', default=list(grid.weight_bits))
    parser.add_argument('--act-bits', type=int, nargs='+', default=list(grid.act_bits))
    parser.add_argument('--keep-ratios', type=float, nargs='+', default=list(grid.keep_ratios))
    parser.add_argument(
        '--mean-bits',
        type=float,
        nargs='+',
        default=list(grid.mean_bits),
        help='for layers whose positions have bits by their energy',
    )
    parser.add_argument(
        '--pointwise-only',
        action='store_true',
        help='layers without wavelets keep the bits of CONFIG',
    )
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help='image to count for; by default that of the first image measured',
    )
    parser.add_argument(
        '--out-dir',
        type=Path,
        help='where to write; ./work_dirs/<config name>/sensitivity by default',
    )
    parser.add_argument('--device', default='cpu', help='where to measure; cpu by default')
    arguments.add_cfg_options(parser, 'change the config, as in training')
    args = parser.parse_args(argv)
    arguments.require_at_least_one(parser, args, 'images', 'batch_size')
    for budget in args.budget:
        if budget not in preset_names() and not budget_number(budget) > 0:
            parser.error(
                f'--budget must be the name of a preset or a positive number, got {budget}'
            )
    args.out_dir = args.out_dir or Path('work_dirs') / Path(args.config).stem / 'sensitivity'
    return args


def write(allocation: Allocation, budget: str, compression: dict, args: argparse.Namespace) -> None:
    """Write the compression dictionary and the image of an allocation, and print its table."""
    stem = args.out_dir / f'allocated_{re.sub(r"[^0-9a-zA-Z_]+", "_", budget).strip("_")}'
    file, image = stem.with_suffix('.yml'), stem.with_suffix('.png')
    title = f'{budget}: {allocation.summary()}'
    write_compression(
        file,
        allocated_compression(compression, allocation),
        note=f'{title}\nAllocated by tools/analysis_tools/sensitivity.py.',
        quantizer_paramwise=quantizer_paramwise(),
    )
    plot_allocation(allocation, image, title)
    print(f'\n{allocation}\nwrote {file} and {image}')


def counted(model: nn.Module, shape: Sequence[int]) -> CostReport:
    """Count the cost of a model, and say how far this is."""
    with layer_progress(model, 'counting'):
        return count_cost(model, shape)


def run(args: argparse.Namespace) -> dict[str, Allocation]:
    """Measure and allocate.

    Returns:
        The allocation for each budget.

    Raises:
        LaunchError: If the config is not compressed or has no data, or the checkpoint does not fit.
        ValueError: If the compression does not fit the model, or a budget is too small.
    """
    config = load_config(args.config, args.cfg_options)
    if args.compression is not None:
        config.model = compress(model_config(config), args.compression)
    dense, compression = dense_config(config)
    batches = list(
        calibration_batches(config, args.images, args.batch_size, progress='reading images')
    )
    model = load_trained(dense, args.checkpoint)[0].to(args.device)
    count = partial(counted, shape=tuple(args.shape or batches[0]['inputs'][0].shape[-2:]))
    cost = compressed_cost(model, compression, count)
    presets = {name: preset(name) for name in args.budget if name in preset_names()}
    budgets = {text: budget_bops(text, model, count, presets) for text in args.budget}
    grid = Grid(args.weight_bits, args.act_bits, args.keep_ratios, args.mean_bits)
    measured = MeasuredLayers(
        args.out_dir / 'sensitivity.json',
        dict(
            checkpoint=args.checkpoint,
            images=args.images,
            batch_size=args.batch_size,
            keep_batch_norm=args.keep_batch_norm,
        ),
    )
    layers = measured.measure(
        model,
        compression,
        batches,
        grid=grid,
        batch_norm=not args.keep_batch_norm,
        verbose=True,
    )
    candidates = choosable(layers, cost, grid, pointwise_only=args.pointwise_only)
    fixed = sum(layer.total_bops for layer in cost.layers if layer.name not in candidates)
    print(f'dense: {count(model).summary()}\nlayers without a choice: {fixed / 1e9:,.3f} G BOPs')
    allocations = {text: allocate(candidates, budget, fixed) for text, budget in budgets.items()}
    for text, allocation in allocations.items():
        write(allocation, text, compression, args)
    return allocations


def main(argv: list[str] | None = None) -> None:
    """Run, and print expected errors in one line."""
    args = parse_args(argv)
    with one_line_errors('sensitivity', ValueError, TypeError), quiet():
        run(args)


if __name__ == '__main__':
    main()
