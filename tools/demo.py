"""Train a small network on rendered street scenes, compress it, and show what each step costs and keeps.

Runs the configs of ``configs/wcc/demo`` one after the other: dense; quantized to 8/8 and 8/4 bits; wavelet compressed
to 50, 25 and 12.5 % of the coefficients by a schedule. Prints one table and writes a picture.
"""
from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

import mmwcc  # noqa: F401  (makes the `mmseg::` bases of the configs resolve)
from mmwcc.model_tree import compressed_layers

CONFIGS = Path(__file__).resolve().parents[1] / 'configs' / 'wcc' / 'demo'
NETWORK, DATA = 'deeplabv3plus_mobilenetv2-0.5x', 'street-192x128'
RUNS = ('dense_360i', 'quant-w8a8_40i', 'quant-w8a4_40i', 'wcc-w8a8-k12_5-steps_120i')
SAMPLES = (0, 3, 9)
"""Held-out scenes of the picture."""


@dataclass
class Point:
    """One evaluated model: a line of the table and a column of the picture."""
    name: str
    miou: float
    kept: float
    megabytes: float
    seconds: float
    predictions: list[np.ndarray]


def kept_share(model: nn.Module, size: tuple[int, int]) -> float:
    """Return the share of the multiplications of all 1x1 convolutions that is left, for images of ``size`` (H, W)."""
    dense = kept = 0.0
    layers = {id(layer) for layer in compressed_layers(model).values()}

    def count(module: nn.Conv2d, inputs, output) -> None:
        nonlocal dense, kept
        macs = module.weight.numel() * output.shape[2] * output.shape[3]
        dense += macs
        kept += macs * (getattr(module, 'keep_ratio', 1.0) if id(module) in layers else 1.0)

    pointwise = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    handles = [module.register_forward_hook(count) for module in pointwise]
    device = next(model.parameters()).device
    with torch.no_grad():
        model(torch.zeros(1, 3, *size, device=device), mode='tensor')
    for handle in handles:
        handle.remove()
    return kept / dense


def model_megabytes(model: nn.Module) -> float:
    """Return the size of the weights in MB: quantized ones at their bits, all else at 32."""
    bits = {layer.weight: layer.weight_quant.bits for layer in compressed_layers(model).values() if layer.weight_quant}
    return sum(parameter.numel() * bits.get(parameter, 32) for parameter in model.parameters()) / 8e6


def point_name(model: nn.Module) -> str:
    """Describe how a model is compressed, for example '8/8 + WCC 25 %'."""
    layers = compressed_layers(model).values()
    if not layers:
        return 'dense'
    layer = next(iter(layers))
    ratios = {layer.keep_ratio for layer in layers if hasattr(layer, 'keep_ratio')}
    name = f'{layer.weight_quant.bits}/{layer.act_quant.bits}'
    return f'{name} + WCC {100 * max(ratios):g} %' if ratios else name


class Collector(Hook):
    """Keep the figures and the predictions of every validation."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.start = time.time()

    def after_val_epoch(self, runner, metrics=None) -> None:
        model, dataset = runner.model, runner.val_dataloader.dataset
        predictions = []
        with torch.no_grad():
            for index in SAMPLES:
                entry = dataset[index]
                batch = dict(inputs=[entry['inputs']], data_samples=[entry['data_samples']])
                predictions.append(model.test_step(batch)[0].pred_sem_seg.data[0].cpu().numpy())
            width, height = dataset.img_scale
            kept = kept_share(model, (height, width))
        self.points.append(Point(point_name(model), metrics['mIoU'], kept, model_megabytes(model),
                                 time.time() - self.start, predictions))
        self.start = time.time()


def run(name: str, work_dir: Path, dense_checkpoint: Path | None) -> list[Point]:
    """Train one config and return a point for each of its validations."""
    config = Config.fromfile(CONFIGS / f'{NETWORK}_{name}_{DATA}.py')
    config.work_dir = str(work_dir / name)
    config.experiment_name = f'demo-{name}-{time.time_ns()}'
    if dense_checkpoint is not None:
        config.load_from = str(dense_checkpoint)
    runner = Runner.from_cfg(config)
    collector = Collector()
    runner.register_hook(collector)
    runner.train()
    return collector.points


def table(points: list[Point]) -> str:
    """Format the points as one table."""
    rows = [('network', 'mIoU', '1x1 MACs', 'weights', 'time')]
    rows += [(p.name, f'{p.miou:.2f}', f'{100 * p.kept:.1f} %', f'{p.megabytes:.2f} MB', f'{p.seconds:.0f} s')
             for p in points]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ['  '.join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:],
                                                                                           strict=True))])
             for row in rows]
    lines.insert(1, '-' * len(lines[0]))
    return '\n'.join(lines)


def picture(points: list[Point], scale: int = 2) -> np.ndarray:
    """Draw the samples: one row each, with input, truth and the prediction of every point side by side."""
    from mmwcc.datasets import LoadSyntheticStreet, SyntheticStreetDataset
    dataset = SyntheticStreetDataset(length=max(SAMPLES) + 1, split='val', pipeline=[LoadSyntheticStreet()])
    palette = np.array(dataset.metainfo['palette'], dtype=np.uint8)[:, ::-1]
    columns = ['input', 'truth', *(f'{p.name}: {p.miou:.1f}' for p in points)]
    rows = []
    for row, index in enumerate(SAMPLES):
        scene = dataset[index]
        tiles = [scene['img'], palette[scene['gt_seg_map']], *(palette[p.predictions[row]] for p in points)]
        rows.append(np.hstack([np.pad(np.kron(tile, np.ones((scale, scale, 1), np.uint8)), ((2, 2), (2, 2), (0, 0)),
                                      constant_values=255) for tile in tiles]))
    body = np.vstack(rows)
    title = np.full((32, body.shape[1], 3), 255, np.uint8)
    step = body.shape[1] // len(columns)
    for column, text in enumerate(columns):
        cv2.putText(title, text, (column * step + 6, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (30, 30, 30), 1, cv2.LINE_AA)
    return np.vstack([title, body])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'), help='where everything is written')
    args = parser.parse_args()
    start = time.time()
    points: list[Point] = []
    for number, name in enumerate(RUNS, 1):
        print(f'\n=== {number} of {len(RUNS)}: {name} ({time.time() - start:.0f} s so far) ===\n', flush=True)
        dense = None if number == 1 else args.work_dir / RUNS[0] / 'iter_360.pth'
        points += run(name, args.work_dir, dense)
    path = args.work_dir / 'demo.png'
    cv2.imwrite(str(path), picture(points))
    summary = table(points)
    (args.work_dir / 'demo.txt').write_text(summary + '\n')
    print(f'\n{summary}\n\n1x1 MACs: share of the multiplications of the 1x1 convolutions that is left.\n'
          f'Picture: {path}\nTotal: {time.time() - start:.0f} s')


if __name__ == '__main__':
    main()
