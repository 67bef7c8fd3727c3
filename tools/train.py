"""Train a model: any mmsegmentation or mmdetection config, compressed or not."""

from __future__ import annotations

import argparse

from mmengine.config import Config
from mmengine.device import get_device

from mmwcc.checkpoint import latest_checkpoint
from mmwcc.registry import type_name
from mmwcc.utils import (
    LaunchError,
    arguments,
    build_runner,
    check_checkpoint,
    check_resumable,
    load_config,
    one_line_errors,
    set_work_dir,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a model.')
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--work-dir', help='folder for logs and checkpoints; ./work_dirs/<config name> by default'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='continue from this checkpoint, or without a value from the latest one in the work '
        'folder; if there is none yet, start as the config says',
    )
    parser.add_argument('--amp', action='store_true', help='train with automatic mixed precision')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate to the batch size by the auto_scale_lr of the config',
    )
    arguments.add_launch_options(parser)
    return arguments.parse_launched(parser)


def enable_amp(cfg: Config) -> None:
    """Switch the optimizer wrapper of a config to automatic mixed precision."""
    kind = type_name(cfg.optim_wrapper.get('type', 'OptimWrapper'))
    name = kind.rpartition('.')[2] if kind.startswith('mmengine.') else kind
    if name not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise LaunchError(
            f'--amp needs optim_wrapper.type OptimWrapper, got {kind}. Drop --amp, or set in the '
            'config a wrapper with mixed precision of your own.'
        )
    if get_device() in ('cpu', 'mps'):
        raise LaunchError(
            '--amp needs a GPU that mmengine trains with mixed precision on, and there is none. '
            'Drop --amp.'
        )
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def enable_auto_scale_lr(cfg: Config) -> None:
    """Enable the learning rate scaling that a config describes."""
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise LaunchError(
            '--auto-scale-lr needs the batch size that the learning rate was chosen for, which the '
            'config does not state. Add auto_scale_lr = dict(enable=False, base_batch_size=...) to '
            'it.'
        )
    cfg.auto_scale_lr.enable = True


def set_start(cfg: Config, resume: str | None) -> None:
    """Set and check the checkpoint that training starts from."""
    if cfg.get('resume') and not cfg.get('load_from'):
        resume = resume or 'auto'  # as mmengine does for resume=True without load_from
    if resume == 'auto':
        latest = latest_checkpoint(cfg.work_dir)
        if latest is None:
            print(f'train.py: no checkpoint to resume in {cfg.work_dir}, so training starts anew.')
        resume = latest
    if resume is not None:
        cfg.resume = True
        cfg.load_from = resume
    if cfg.get('load_from') and cfg.get('resume'):
        check_resumable(cfg.load_from, cfg)
    elif cfg.get('load_from'):
        check_checkpoint(cfg.load_from)


def main() -> None:
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options, args.launcher)
    set_work_dir(cfg, args.work_dir)
    if args.amp:
        enable_amp(cfg)
    if args.auto_scale_lr:
        enable_auto_scale_lr(cfg)
    set_start(cfg, args.resume)
    build_runner(cfg).train()


if __name__ == '__main__':
    with one_line_errors('train.py'):
        main()
