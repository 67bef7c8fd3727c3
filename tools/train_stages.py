"""Train several configs in order, each from the last checkpoint of the one before.

    python tools/train_stages.py STAGE1.py STAGE2.py STAGE3.py [--work-dir FOLDER] [--resume]

Each stage is a config. It may name a checkpoint work_dirs/NAME/..., in load_from or in an init_cfg,
where NAME is the name of an earlier config on the command line. This path is then replaced by the
last checkpoint of that stage, whatever its folder and the number of its iterations or epochs.
With --resume, finished stages are skipped, and the first unfinished stage is resumed.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from mmwcc.checkpoint import final_checkpoint, latest_checkpoint
from mmwcc.utils import (
    LaunchError,
    arguments,
    build_runner,
    check_checkpoint,
    check_resumable,
    load_config,
    one_line_errors,
    separate_visualizer,
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train in stages.')
    parser.add_argument('configs', nargs='+', help='config files in the order of the stages')
    parser.add_argument(
        '--work-dir',
        default='work_dirs',
        help='folder of the folders of the stages, which are called '
        'as their configs; ./work_dirs by default',
    )
    parser.add_argument(
        '--resume', action='store_true', help='skip stages that are finished, resume the next one'
    )
    arguments.add_launch_options(parser, 'change settings of all stages: a.b=1')
    return arguments.parse_launched(parser, argv)


def link(node, earlier: dict[str, Path]) -> None:
    """Replace checkpoints of earlier stages in a config by those that were really written.

    ``node`` is changed in place.
    """
    for key, value in list(node.items()) if isinstance(node, dict) else list(enumerate(node)):
        if isinstance(value, str):
            match = re.fullmatch(r'work_dirs/([^/]+)/[^/]+\.pth', value)
            if match and match[1] in earlier:
                node[key] = str(earlier[match[1]])
        elif isinstance(value, (dict, list)):
            link(value, earlier)


def needed_checkpoints(node) -> list[str]:
    """Return the checkpoints that a config starts from."""
    found = []
    for key, value in list(node.items()) if isinstance(node, dict) else list(enumerate(node)):
        if key in ('load_from', 'checkpoint') and isinstance(value, str):
            found.append(value)
        elif isinstance(value, (dict, list)):
            found += needed_checkpoints(value)
    return found


def plan(args: argparse.Namespace) -> list[Config]:
    """Read and link all stages, and reject what cannot work before anything is trained."""
    stages, earlier = [], {}
    for path in args.configs:
        cfg = load_config(path, args.cfg_options, args.launcher)
        name = Path(path).stem
        if name in earlier:
            raise LaunchError(f'{name} is given twice. Name every stage once, in order.')
        cfg.work_dir = str(Path(args.work_dir) / name)
        separate_visualizer(cfg)
        link(cfg._cfg_dict, earlier)
        for checkpoint in needed_checkpoints(dict(model=cfg.model, load_from=cfg.get('load_from'))):
            if Path(checkpoint) not in earlier.values():
                check_checkpoint(checkpoint)
        earlier[name] = final_checkpoint(cfg)
        stages.append(cfg)
    return stages


def run_stage(cfg: Config, number: int, stages: int, resume: bool) -> None:
    """Train one stage; a resumed run skips a finished stage."""
    title = f'stage {number} of {stages}, {Path(cfg.filename).stem}'
    final = final_checkpoint(cfg)
    if resume and final.is_file():
        check_checkpoint(str(final))
        print_log(f'{title}: finished before, {final} is there.')
        return
    latest = latest_checkpoint(cfg.work_dir) if resume else None
    if latest:
        check_resumable(latest, cfg)
        cfg.resume, cfg.load_from = True, latest
    for checkpoint in needed_checkpoints(dict(model=cfg.model, load_from=cfg.get('load_from'))):
        check_checkpoint(checkpoint)
    print_log(f'{title}: {f"resumes from {latest}" if latest else "begins"}, in {cfg.work_dir}.')
    build_runner(cfg).train()
    if not final.is_file():
        raise LaunchError(
            f'{title} ended without {final}, which the next stage starts from. Let '
            'default_hooks.checkpoint save the last iteration or epoch under its usual name.'
        )
    print_log(f'{title}: ends with {final}.')


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    stages = plan(args)
    for number, cfg in enumerate(stages, 1):
        run_stage(cfg, number, len(stages), args.resume)


if __name__ == '__main__':
    with one_line_errors('train_stages.py'):
        main()
