"""Train a small network on rendered street scenes, compress it, and compare the results.

Runs the configs of ``configs/wcc/demo`` one after the other: dense; quantized to 8/8 and 8/4 bits;
and wavelet compressed to 50, 25 and 12.5 % of the coefficients by a schedule. Prints a table of
what each step costs and keeps, draws an image, and writes a page that compares the runs.
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
from mmwcc.checkpoint import final_checkpoint
from mmwcc.cost import count_cost
from mmwcc.model_tree import LayerState, compressed_layers
from mmwcc.registry import DATASETS
from mmwcc.reports import report_folders
from mmwcc.utils import separate_visualizer

CONFIGS = Path(__file__).resolve().parents[1] / 'configs' / 'wcc' / 'demo'
NETWORK, DATA = 'deeplabv3plus_mobilenetv2-0.5x', 'street-192x128'
RUNS = ('dense_180i', 'quant-w8a8_20i', 'quant-w8a4_20i', 'wcc-w8a8-k12_5-steps_60i')
SAMPLES = (0, 3, 9)
"""Held-out scenes of the image."""


@dataclass
class Point:
    """One evaluated model: a row of the table and a column of the image."""

    name: str
    miou: float
    kept: float
    bops: float
    megabytes: float
    seconds: float
    predictions: list[np.ndarray]


def point_name(model: nn.Module) -> str:
    """Describe how a model is compressed, for example '8/8 + WCC 25 %'."""
    layers = compressed_layers(model).values()
    if not layers:
        return 'dense'
    states = [LayerState.of(layer) for layer in layers]
    ratios = {state.keep_ratio for state in states if state.keep_ratio is not None}
    name = f'{states[0].weight_bits}/{states[0].act_bits}'
    return f'{name} + WCC {100 * max(ratios):g} %' if ratios else name


class Collector(Hook):
    """Store the metrics and the predictions of every validation."""

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
        cost = count_cost(model, (height, width), convention='paper')
        self.points.append(
            Point(
                point_name(model),
                metrics['mIoU'],
                cost.kept_share,
                cost.total.total_bops,
                cost.total.weight_bytes / 1e6,
                time.time() - self.start,
                predictions,
            )
        )
        self.start = time.time()


def read_config(name: str, work_dir: Path) -> Config:
    """Return the config of a run."""
    config = Config.fromfile(CONFIGS / f'{NETWORK}_{name}_{DATA}.py')
    config.work_dir = str(work_dir / name)
    config.experiment_name = f'demo-{name}-{time.time_ns()}'
    separate_visualizer(config)
    return config


def run(config: Config) -> list[Point]:
    """Train one config and return a point for each of its validations."""
    runner = Runner.from_cfg(config)
    collector = Collector()
    runner.register_hook(collector)
    runner.train()
    return collector.points


def table(points: list[Point]) -> str:
    """Format the points as one table."""
    rows = [('network', 'mIoU', '1x1 MACs', 'BOPs', 'weights', 'time')]
    rows += [
        (
            p.name,
            f'{p.miou:.2f}',
            f'{100 * p.kept:.1f} %',
            f'{p.bops / 1e9:.0f} G',
            f'{p.megabytes:.2f} MB',
            f'{p.seconds:.0f} s',
        )
        for p in points
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        '  '.join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    ]
    lines.insert(1, '-' * len(lines[0]))
    return '\n'.join(lines)


def figure(points: list[Point], scale: int = 2) -> np.ndarray:
    """Draw the samples, one per row: input, ground truth and every point's prediction."""
    from mmwcc.datasets import LoadSyntheticStreet, SyntheticStreetDataset

    dataset = SyntheticStreetDataset(
        length=max(SAMPLES) + 1, split='val', pipeline=[LoadSyntheticStreet()]
    )
    palette = np.array(dataset.metainfo['palette'], dtype=np.uint8)[:, ::-1]
    columns = ['input', 'truth', *(f'{p.name}: {p.miou:.1f}' for p in points)]
    rows = []
    for row, index in enumerate(SAMPLES):
        scene = dataset[index]
        tiles = [
            scene['img'],
            palette[scene['gt_seg_map']],
            *(palette[p.predictions[row]] for p in points),
        ]
        rows.append(
            np.hstack(
                [
                    np.pad(
                        np.kron(tile, np.ones((scale, scale, 1), np.uint8)),
                        ((2, 2), (2, 2), (0, 0)),
                        constant_values=255,
                    )
                    for tile in tiles
                ]
            )
        )
    body = np.vstack(rows)
    title = np.full((32, body.shape[1], 3), 255, np.uint8)
    step = body.shape[1] // len(columns)
    for column, text in enumerate(columns):
        cv2.putText(
            title,
            text,
            (column * step + 6, 22),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.6,
            (30, 30, 30),
            1,
            cv2.LINE_AA,
        )
    return np.vstack([title, body])


def render_scenes(config: Config) -> None:
    """Render all scenes of a run into memory, on all processors."""
    for loader in (config.train_dataloader, config.val_dataloader):
        dataset = DATASETS.build({**loader.dataset, 'pipeline': []})
        print(f'Rendering {len(dataset)} street scenes for {dataset.split} ...', flush=True)
        dataset.render_all()


def train_all(work_dir: Path) -> list[Point]:
    """Train the configs of :data:`RUNS`, the later ones from the result of the first."""
    start = time.time()
    dense = read_config(RUNS[0], work_dir)
    render_scenes(dense)
    points: list[Point] = []
    for number, name in enumerate(RUNS, 1):
        print(
            f'\n=== {number} of {len(RUNS)}: {name} ({time.time() - start:.0f} s so far) ===\n',
            flush=True,
        )
        config = read_config(name, work_dir)
        if number > 1:
            config.load_from = str(final_checkpoint(dense))
        points += run(config)
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/demo'), help='where everything is written'
    )
    folder = parser.parse_args().work_dir
    start = time.time()
    points = train_all(folder)
    image, page = folder / 'demo.png', folder / 'report.html'
    cv2.imwrite(str(image), figure(points))
    summary = table(points)
    (folder / 'demo.txt').write_text(summary + '\n')
    report_folders([folder / name for name in RUNS], page, title='The demo of mmwcc')
    print(
        f'\n{summary}\n\n'
        '1x1 MACs: share of the multiplications of the 1x1 convolutions that is left.\n'
        'BOPs: bit operations for one image.\n'
        f'Image: {image}\nReport: {page}\nTotal: {time.time() - start:.0f} s'
    )


if __name__ == '__main__':
    main()
