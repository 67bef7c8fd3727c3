"""Draw the boxes that a trained detector finds in an image.

Needs mmdetection and the operators of mmcv, which `make setup` installs.
"""

from __future__ import annotations

import argparse

import mmcv
from mmdet.apis import inference_detector
from mmdet.models.detectors import BaseDetector
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config

from mmwcc.utils import (
    LaunchError,
    load_config,
    load_trained,
    one_line_errors,
    register_all_modules,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Draw the boxes that a trained detector finds in an image.'
    )
    parser.add_argument('image', help='the image')
    parser.add_argument('config', help='config file of the detector')
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='draw boxes from this score on; 0.3 by default'
    )
    parser.add_argument('--out-file', default='detection.png', help='where to write the image')
    return parser.parse_args()


def class_names(cfg: Config, checkpoint: dict) -> dict:
    """Return the classes, from the checkpoint or else from the config."""
    in_config = cfg.get('test_dataloader', {}).get('dataset', {}).get('metainfo')
    known = checkpoint.get('meta', {}).get('dataset_meta') or in_config
    if not known:
        raise LaunchError(
            'Neither the checkpoint nor the config names the classes. Set '
            'test_dataloader.dataset.metainfo in the config.'
        )
    return {'palette': 'random', **known}


def detect(args: argparse.Namespace) -> tuple[DetDataSample, dict]:
    """Return the detections and the classes."""
    cfg = load_config(args.config)
    model, checkpoint = load_trained(cfg, args.checkpoint)
    if not isinstance(model, BaseDetector):
        raise LaunchError(
            f'{args.config} must be of a detector of mmdetection, got {type(model).__name__}.'
        )
    model.cfg = cfg
    return inference_detector(model, args.image), class_names(cfg, checkpoint)


def main() -> None:
    args = parse_args()
    register_all_modules()
    image = mmcv.imread(args.image, channel_order='rgb')
    if image is None:
        raise LaunchError(f'{args.image} is no image.')
    sample, classes = detect(args)
    visualizer = DetLocalVisualizer(vis_backends=None)
    visualizer.dataset_meta = classes
    visualizer.add_datasample(
        'detection',
        image,
        sample,
        draw_gt=False,
        pred_score_thr=args.score_thr,
        out_file=args.out_file,
    )
    found = sample.pred_instances.labels[sample.pred_instances.scores >= args.score_thr].bincount()
    print(
        ', '.join(
            f'{classes["classes"][label]}: {count}' for label, count in enumerate(found) if count
        )
        or 'nothing'
    )
    print(f'wrote {args.out_file}')


if __name__ == '__main__':
    with one_line_errors('demo_detection.py', FileNotFoundError):
        main()
