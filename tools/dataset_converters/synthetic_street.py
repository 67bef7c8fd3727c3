"""Write synthetic street scenes as a sheet of samples, or as folders of images and label maps.

python tools/dataset_converters/synthetic_street.py --sheet samples.png --length 12
python tools/dataset_converters/synthetic_street.py --out-dir data/synthetic_street --split val
--length 100
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from mmwcc.datasets import LoadSyntheticStreet, SyntheticStreetDataset
from mmwcc.progress import track


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description='Draw synthetic street scenes')
    parser.add_argument('-o', '--out-dir', help='write img_dir/<split> and ann_dir/<split> here')
    parser.add_argument(
        '--sheet', help='write images with their labels and boxes below to this file'
    )
    parser.add_argument('--length', type=int, default=12, help='number of scenes')
    parser.add_argument(
        '--img-scale', type=int, nargs=2, default=(256, 192), metavar=('WIDTH', 'HEIGHT')
    )
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--split', default='train', choices=('train', 'val', 'test'))
    parser.add_argument('--columns', type=int, default=4, help='images in a row of the sheet')
    args = parser.parse_args(argv)
    if not (args.out_dir or args.sheet):
        parser.error('give --out-dir, --sheet or both')
    return args


def draw_labels(results: dict, palette: list) -> np.ndarray:
    """Draw the label map in the colours of ``palette`` (RGB), with the boxes on it.

    The result is (H, W, 3) BGR.
    """
    drawn = np.array(palette, np.uint8)[results['gt_seg_map'], ::-1].copy()
    for instance in results['instances']:
        x0, y0, x1, y1 = (int(v) for v in instance['bbox'])
        color = ((0, 255, 255), (0, 0, 255), (0, 255, 0))[instance['bbox_label']]
        cv2.rectangle(drawn, (x0, y0), (x1 - 1, y1 - 1), color)
    return drawn


def write(index: int, dataset: SyntheticStreetDataset, out_dir: Path) -> None:
    """Write the image and the label map of one scene."""
    results = dataset[index]
    for kind, key in (('img_dir', 'img'), ('ann_dir', 'gt_seg_map')):
        cv2.imwrite(str(out_dir / kind / dataset.split / f'{index:06d}.png'), results[key])


def main(argv: list[str] | None = None) -> None:
    """Draw what the command line asks for."""
    args = parse_args(argv)
    dataset = SyntheticStreetDataset(
        length=args.length,
        img_scale=tuple(args.img_scale),
        seed=args.seed,
        split=args.split,
        cache=False,
        pipeline=[LoadSyntheticStreet()],
    )
    if args.sheet:
        palette = dataset.metainfo['palette']
        tiles = [
            np.vstack([results['img'], draw_labels(results, palette)])
            for results in track(dataset, 'sheet', 'scenes')
        ]
        tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % args.columns)
        rows = [np.hstack(tiles[i : i + args.columns]) for i in range(0, len(tiles), args.columns)]
        cv2.imwrite(args.sheet, np.vstack(rows))
    if args.out_dir:
        for kind in ('img_dir', 'ann_dir'):
            (Path(args.out_dir) / kind / args.split).mkdir(parents=True, exist_ok=True)
        for index in track(range(args.length), 'synthetic_street', 'scenes'):
            write(index, dataset, Path(args.out_dir))


if __name__ == '__main__':
    main()
