"""Test a checkpoint: any mmsegmentation or mmdetection config, compressed or not."""

from __future__ import annotations

import argparse
from copy import deepcopy

from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from mmwcc.utils import (
    LaunchError,
    arguments,
    build_runner,
    check_checkpoint,
    load_config,
    one_line_errors,
    set_work_dir,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Test a checkpoint.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--work-dir', help='folder for the metrics; ./work_dirs/<config name> by default'
    )
    parser.add_argument(
        '--out', help='keep the predictions: a folder (mmseg) or a .pkl file (mmdet)'
    )
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', help='draw predictions into this folder of the work folder')
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds that --show shows an image'
    )
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    arguments.add_launch_options(parser)
    return arguments.parse_launched(parser)


def is_detection(cfg: Config) -> bool:
    """Return whether a config is mmdetection's."""
    return cfg.get('default_scope') == 'mmdet'


def enable_drawing(cfg: Config, args: argparse.Namespace) -> None:
    """Make the visualization hook of a config draw the images for --show and --show-dir."""
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        wanted = 'Det' if is_detection(cfg) else 'Seg'
        raise LaunchError(
            '--show and --show-dir need a visualization hook, which the config does not have. Add '
            f"default_hooks = dict(visualization=dict(type='{wanted}VisualizationHook')) to it."
        )
    hook.draw = True
    if args.show:
        hook.show = True
        hook.wait_time = args.wait_time
    if args.show_dir and is_detection(cfg):
        hook.test_out_dir = args.show_dir
    elif args.show_dir:
        cfg.visualizer.save_dir = args.show_dir


def enable_tta(cfg: Config) -> None:
    """Wrap the model and replace the test pipeline for test-time augmentation."""
    dataset = cfg.test_dataloader.dataset
    if is_detection(cfg):
        cfg.setdefault(
            'tta_model',
            dict(
                type='DetTTAModel',
                tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
            ),
        )
        if 'tta_pipeline' not in cfg:
            cfg.tta_pipeline = flip_pipeline(dataset)
    missing = [key for key in ('tta_model', 'tta_pipeline') if key not in cfg]
    if missing:
        raise LaunchError(
            f'--tta needs {" and ".join(missing)} in the config. mmsegmentation states both in its '
            '_base_/datasets and _base_/default_runtime.py.'
        )
    dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def flip_pipeline(dataset: ConfigDict) -> list:
    """Return a detection test pipeline with every image also flipped."""
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    keys = (
        'img_id',
        'img_path',
        'ori_shape',
        'img_shape',
        'scale_factor',
        'flip',
        'flip_direction',
    )
    flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
    return [
        *deepcopy(dataset.pipeline[:-1]),
        dict(type='TestTimeAug', transforms=[flips, [dict(type='PackDetInputs', meta_keys=keys)]]),
    ]


def keep_label_maps(cfg: Config, folder: str) -> None:
    """Make the segmentation metrics of a config write their predictions to a folder."""
    evaluators = (
        cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    )
    for evaluator in evaluators:
        evaluator.output_dir = folder
        evaluator.keep_results = True


def keep_detections(runner: Runner, file: str) -> None:
    """Make a runner write its detections to a pickle file."""
    from mmdet.evaluation import DumpDetResults

    runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=file))


def main() -> None:
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options, args.launcher)
    if args.out and is_detection(cfg) and not args.out.endswith(('.pkl', '.pickle')):
        raise LaunchError(
            f'--out must end in .pkl or .pickle for a detection config, got {args.out}.'
        )
    check_checkpoint(args.checkpoint)
    set_work_dir(cfg, args.work_dir)
    cfg.load_from = args.checkpoint
    if args.show or args.show_dir:
        enable_drawing(cfg, args)
    if args.tta:
        enable_tta(cfg)
    if args.out and not is_detection(cfg):
        keep_label_maps(cfg, args.out)
    runner = build_runner(cfg)
    if args.out and is_detection(cfg):
        keep_detections(runner, args.out)
    runner.test()


if __name__ == '__main__':
    with one_line_errors('test.py'):
        main()
