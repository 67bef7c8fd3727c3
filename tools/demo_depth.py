"""Draw the results of a depth network.

The panels show images, predicted and measured depth, and neighbouring frames warped onto the image.
"""

from __future__ import annotations

import argparse

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.config import DictAction
from torch import Tensor

from mmwcc.models import Monodepth2
from mmwcc.utils import LaunchError, load_config, load_trained, one_line_errors, spread_batches

COLUMNS = ('image', 'depth', 'measured', 'neighbour', 'neighbour, warped', 'what is left, x3')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of a Monodepth2, compressed or not')
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument(
        '-o', '--out', default='demo_depth.png', help='the image; demo_depth.png by default'
    )
    parser.add_argument(
        '--images', type=int, default=4, help='how many, spread over the data; 4 by default'
    )
    parser.add_argument(
        '--split',
        choices=['train', 'val', 'test'],
        default='test',
        help='which data; test by default',
    )
    parser.add_argument(
        '--neighbour', type=int, default=1, help='which frame to warp; 1, the next one, by default'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change settings of the config',
    )
    return parser.parse_args()


@torch.no_grad()
def panels(model: Monodepth2, batch: dict) -> list[np.ndarray | None]:
    """Return the panels of :data:`COLUMNS` for one image.

    A panel is RGB in [0, 1], inverse depth, or None.
    """
    data = model.data_preprocessor(batch)
    warped = model.reproject(data['inputs'], data['data_samples'])[0, 0]
    sample = model(**data, mode='predict')[0]
    target, neighbour = sample.frames.float() / 255
    left = (3 * (warped - target).abs()).clamp(0, 1)
    measured = sample.get('gt_depth')
    if measured is not None:
        # A prediction of unknown scale is scaled to the median of the measured depth.
        seen = measured > 0
        unit = measured[seen].median() / sample.pred_depth.median()
        measured = torch.where(seen, unit / measured, torch.nan).numpy()
    return [
        _rgb(target),
        (1 / sample.pred_depth).numpy(),
        measured,
        _rgb(neighbour),
        _rgb(warped),
        _rgb(left),
    ]


def _rgb(image: Tensor) -> np.ndarray:
    return image.flip(0).permute(1, 2, 0).numpy()


def draw(rows: list[list[np.ndarray | None]], path: str) -> None:
    """Write one row of panels for each image; near is bright."""
    height, width = rows[0][0].shape[:2]
    figure = Figure(
        figsize=(3 * len(COLUMNS), 0.3 + 3 * len(rows) * height / width), layout='constrained'
    )
    axes = figure.subplots(len(rows), len(COLUMNS), squeeze=False)
    colors = matplotlib.colormaps['magma'].with_extremes(bad='0.85')
    for axis, title in zip(axes[0], COLUMNS, strict=True):
        axis.set_title(title, fontsize=9)
    for row, line in zip(axes, rows, strict=True):
        top = np.quantile(line[1], 0.98)
        for axis, panel in zip(row, line, strict=True):
            axis.set_axis_off()
            if panel is not None:
                axis.imshow(panel, cmap=colors, vmin=0, vmax=top, aspect='auto')
    figure.savefig(path, dpi=100)


def main() -> None:
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options)
    model, _ = load_trained(cfg, args.checkpoint)
    if not isinstance(model, Monodepth2):
        raise LaunchError(
            f'The model of {args.config} must be a Monodepth2, got {type(model).__name__}. Use a '
            'config of configs/depth.'
        )
    cfg[f'{args.split}_dataloader'].dataset.frame_ids = (args.neighbour,)
    rows = [panels(model, batch) for batch in spread_batches(cfg, args.images, args.split)]
    draw(rows, args.out)
    print(f'{len(rows)} images in {args.out}')


if __name__ == '__main__':
    with one_line_errors('demo_depth.py'):
        main()
