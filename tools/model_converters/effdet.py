"""Convert a published EfficientDet for the configs of configs/efficientdet.

    python tools/model_converters/effdet.py efficientdet_d1-bb7e98fe.pth OUT.pth

The source is rwightman/efficientdet-pytorch.
"""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import torch
from mmdet.datasets import CocoDataset

from mmwcc.models.detection import from_effdet
from mmwcc.models.detection.effdet_weights import COCO_ROWS
from mmwcc.utils import LaunchError, one_line_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Convert a published EfficientDet.')
    parser.add_argument(
        'source',
        help='efficientdet_d0-f3276ba8.pth, efficientdet_d1-bb7e98fe.pth, or a retrained one',
    )
    parser.add_argument('out', help='checkpoint to write')
    parser.add_argument(
        '--all-outputs',
        action='store_true',
        help='keep all outputs for classes, instead of the 80 of 90 that COCO uses',
    )
    return parser.parse_args()


def load(path: str) -> dict:
    """Return the weights of a file, with or without the extra entries of a training checkpoint."""
    try:
        loaded = torch.load(path, map_location='cpu', weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise LaunchError(f'{path} cannot be read: {error}') from error
    return loaded.get('state_dict', loaded)


def main() -> None:
    args = parse_args()
    try:
        weights = from_effdet(load(args.source), None if args.all_outputs else COCO_ROWS)
    except ValueError as error:
        raise LaunchError(str(error)) from error
    meta = {} if args.all_outputs else dict(dataset_meta=CocoDataset.METAINFO)
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state_dict=weights, meta=meta), args.out)
    print(f'wrote {args.out}: {sum(value.numel() for value in weights.values()):,} numbers')


if __name__ == '__main__':
    with one_line_errors('effdet.py'):
        main()
