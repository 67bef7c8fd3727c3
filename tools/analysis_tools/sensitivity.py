"""Measure how much each layer's compression changes the output, and share out a budget of bit operations by it.

    python tools/analysis_tools/sensitivity.py DENSE_CONFIG CHECKPOINT --compression wcc_w8a8_k25 --budget wcc_w8a8_k25

A budget is the total of the network: that of a preset, a part of the dense network's (0.05 or 5%), or a number of bit
operations (2e11). Several can be given. For each, a YAML file with the `compression` dictionary, a table and an image
are written. Measuring takes minutes; what was measured is kept in sensitivity.json, where a second call finds it.
"""
from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

from mmengine.config import DictAction
from torch import nn

from mmwcc.compression import compress_model
from mmwcc.cost import CostReport, count_cost
from mmwcc.post_training import (
    Allocation,
    Candidate,
    Choice,
    Grid,
    LayerSensitivity,
    allocate,
    allocated_compression,
    find_candidates,
    measure_sensitivity,
)
from mmwcc.presets import compress, preset, preset_names
from mmwcc.reports import plot_allocation
from mmwcc.utils import (
    LaunchError,
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
    parser = argparse.ArgumentParser(description='Allocate bits and keep ratios to layers under a budget')
    parser.add_argument('config', help='compressed config, or a dense one with --compression')
    parser.add_argument('checkpoint', help='checkpoint of the dense model')
    parser.add_argument('--budget', nargs='+', required=True,
                        help='bit operations of the network: name of a preset, 0.05 or 5%% of the dense, or a number')
    parser.add_argument('--compression', metavar='PRESET', choices=preset_names(),
                        help=f"how to compress a dense config: {', '.join(preset_names())}")
    parser.add_argument('--images', type=int, default=4, help='number of training images; 4 by default')
    parser.add_argument('--batch-size', type=int, default=4, help='images in a batch; 4 by default')
    parser.add_argument('--keep-batch-norm', action='store_true',
                        help='the statistics of BatchNorm will not be estimated again after compression')
    grid = Grid()
    parser.add_argument('--weight-bits', type=int, nargs='+', default=list(grid.weight_bits))
    parser.add_argument('--act-bits', type=int, nargs='+', default=list(grid.act_bits))
    parser.add_argument('--keep-ratios', type=float, nargs='+', default=list(grid.keep_ratios))
    parser.add_argument('--pointwise-only', action='store_true', help='layers without wavelets keep the bits of CONFIG')
    parser.add_argument('--shape', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'),
                        help='image to count for; by default that of the first image measured')
    parser.add_argument('--out-dir', type=Path, help='where to write; ./work_dirs/<config name>/sensitivity by default')
    parser.add_argument('--device', default='cpu', help='where to measure; cpu by default')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='change the config, as in training')
    args = parser.parse_args(argv)
    for option in ('images', 'batch_size'):
        if getattr(args, option) < 1:
            parser.error(f"--{option.replace('_', '-')} must be at least 1, got {getattr(args, option)}")
    for budget in args.budget:
        if budget not in preset_names() and not _number(budget) > 0:
            parser.error(f'--budget must be the name of a preset or a positive number, got {budget}')
    args.out_dir = args.out_dir or Path('work_dirs') / Path(args.config).stem / 'sensitivity'
    return args


def _number(text: str) -> float:
    """Return what a budget says in numbers, or nan."""
    try:
        return float(text[:-1]) / 100 if text.endswith('%') else float(text)
    except ValueError:
        return float('nan')


def find_budget(text: str, model: nn.Module, count: Callable[[nn.Module], CostReport]) -> float:
    """Return the bit operations that a budget allows the network.

    Args:
        text: Name of a preset, a fraction of the dense network up to 1 or in percent, or a number of operations.
        model: The dense model.
        count: Counts a model.
    """
    if text in preset_names():
        return cost_of(model, preset(text), count).total.total_bops
    fraction = _number(text)
    return fraction * count(model).total.total_bops if text.endswith('%') or fraction <= 1 else fraction


def cost_of(model: nn.Module, compression: dict, count: Callable[[nn.Module], CostReport]) -> CostReport:
    """Count what a dense model would cost compressed."""
    model = deepcopy(model)
    compress_model(model, compression, verbose=False)
    return count(model)


def load_measured(path: Path, settings: dict) -> list[LayerSensitivity]:
    """Read what an earlier call measured.

    Raises:
        LaunchError: If it was measured in another way.
    """
    if not path.is_file():
        return []
    content = json.loads(path.read_text(encoding='utf-8'))
    different = [key for key in settings if content['settings'].get(key) != settings[key]]
    if different:
        raise LaunchError(f'{path} was measured with {different[0]} {content["settings"].get(different[0])}, not '
                          f'{settings[different[0]]}. Choose another --out-dir, or delete the file.')
    return [LayerSensitivity(layer.pop('name'), **{
        key: {float(value) if key == 'keep_ratio' else int(value): item for value, item in values.items()}
        for key, values in layer.items()}) for layer in content['layers']]


def measure(model: nn.Module, compression: dict, batches: list, args: argparse.Namespace) -> list[LayerSensitivity]:
    """Measure all layers that are not in OUT_DIR/sensitivity.json yet, and keep each there as soon as it is known."""
    path = args.out_dir / 'sensitivity.json'
    settings = dict(checkpoint=args.checkpoint, images=args.images, batch_size=args.batch_size,
                    keep_batch_norm=args.keep_batch_norm)
    layers = load_measured(path, settings)

    def keep(layer: LayerSensitivity) -> None:
        layers.append(layer)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dict(settings=settings, layers=[asdict(layer) for layer in layers]), indent=1))
        print(f'{len(layers):4d}  {layer.name}', flush=True)

    measure_sensitivity(model, compression, batches, batch_norm=not args.keep_batch_norm, on_layer=keep,
                        grid=Grid(args.weight_bits, args.act_bits, args.keep_ratios),
                        skip=[layer.name for layer in layers])
    return layers


def choices(layers: list[LayerSensitivity], cost: CostReport, args: argparse.Namespace) -> dict[str, list[Candidate]]:
    """Return what may be chosen for each layer under the options of the command line."""
    candidates = find_candidates(layers, cost, Grid(args.weight_bits, args.act_bits, args.keep_ratios))
    if args.pointwise_only:
        built = {layer.name: Choice(layer.weight_bits, layer.act_bits) for layer in cost.layers}
        wavelets = {layer.name for layer in layers if layer.keep_ratio}
        candidates = {name: options if name in wavelets else
                      [option for option in options if option.choice == built[name]]
                      for name, options in candidates.items()}
    return candidates


def write(allocation: Allocation, budget: str, compression: dict, args: argparse.Namespace) -> None:
    """Write the compression and the image of an allocation, and print the table."""
    stem = args.out_dir / f'allocated_{re.sub(r"[^0-9a-zA-Z_]+", "_", budget).strip("_")}'
    file, image = stem.with_suffix('.yml'), stem.with_suffix('.png')
    content, base = allocated_compression(compression, allocation), None
    if args.compression:  # what the preset says besides, as for the optimizer, is inherited
        content, base = dict(rules=content['rules']), f'mmwcc::_base_/compression/{args.compression}.py'
    title = f'{budget}: {allocation.summary()}'
    write_compression(file, content, base, f'{title}\nAllocated by tools/analysis_tools/sensitivity.py.')
    plot_allocation(allocation, image, title)
    print(f'\n{allocation}\nwrote {file} and {image}')


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
    batches = list(calibration_batches(config, args.images, args.batch_size))
    model = load_trained(dense, args.checkpoint)[0].to(args.device)
    shape = tuple(args.shape or batches[0]['inputs'][0].shape[-2:])
    cost = cost_of(model, compression, count := lambda model: count_cost(model, shape))
    budgets = {text: find_budget(text, model, count) for text in args.budget}
    candidates = choices(measure(model, compression, batches, args), cost, args)
    fixed = sum(layer.total_bops for layer in cost.layers if layer.name not in candidates)
    print(f'dense: {count(model).summary()}\nlayers without a choice: {fixed / 1e9:,.3f} G BOPs')
    allocations = {text: allocate(candidates, budget, fixed) for text, budget in budgets.items()}
    for text, allocation in allocations.items():
        write(allocation, text, compression, args)
    return allocations


def main(argv: list[str] | None = None) -> None:
    """Run, and say in one line what cannot be done."""
    args = parse_args(argv)
    with one_line_errors('sensitivity', ValueError, TypeError), quiet():
        run(args)


if __name__ == '__main__':
    main()
