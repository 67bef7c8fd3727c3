"""Train and test every point of a ladder, which compresses one model in many ways.

    python tools/analysis_tools/run_ladder.py configs/wcc/ladders/camvid.py --dry-run
    python tools/analysis_tools/run_ladder.py configs/wcc/ladders/camvid.py --only required

Running the same command again resumes an interrupted training and skips what is finished. At the
end it prints a table and writes tradeoff.png and tradeoff.csv; --report does only that.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from mmengine.config import DictAction

from mmwcc.ladder import LadderRun, draw_ladder, read_ladder
from mmwcc.utils import one_line_errors, quiet


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description='Train and test every point of a ladder')
    parser.add_argument('ladder', help='ladder file, as configs/wcc/ladders/camvid.py')
    parser.add_argument(
        '--seeds', type=int, nargs='+', default=[0], help='seeds of each point; 0 by default'
    )
    parser.add_argument(
        '--only',
        nargs='+',
        default=[],
        metavar='PATTERN',
        help='names (with * and ?) or tags of points; what they start from comes with them',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        help='folder of the work folders; ./work_dirs/<ladder name> by default',
    )
    parser.add_argument(
        '--force',
        action='store_true',
        help='train points again whose settings have changed; old folders go to WORK_DIR/old',
    )
    parser.add_argument(
        '--dry-run', action='store_true', help='say what would be run; needs no checkpoint'
    )
    parser.add_argument(
        '--report', action='store_true', help='run nothing; table and figure of what is finished'
    )
    parser.add_argument(
        '--metric',
        help='name of the result, for example mIoU; by default the one papers print first',
    )
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='input size to count bit operations at; by default that of the test data',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change the ladder: checkpoint=dense.pth recipe.train_cfg.max_iters=800',
    )
    args = parser.parse_args(argv)
    args.work_dir = args.work_dir or Path('work_dirs') / Path(args.ladder).stem
    return args


def show_plan(run: LadderRun) -> None:
    """Print the state of every point, what is left to run, and what has to be there before."""
    for checkpoint in sorted(run.missing):
        print(f'{checkpoint} is not there. The ladder begins with it, so it cannot run yet.')
    for name, outcome in run.outcomes.items():
        print(f'{name}: {outcome.state}' + (f', {outcome.message}' if outcome.message else ''))
        for command in run.commands(name):
            print(f'    {shlex.join(command)}')


def main(argv: list[str] | None = None) -> None:
    """Run the ladder, print the table; exit code 1 if a point is not finished."""
    args = parse_args(argv)
    try:
        with one_line_errors('run_ladder', ValueError, TypeError, OSError), quiet():
            ladder = read_ladder(args.ladder, args.cfg_options)
            steps = ladder.steps(args.seeds, args.only)
            run = LadderRun(ladder, args.work_dir, steps, dry=args.dry_run)
            if args.dry_run:
                show_plan(run)
                return
            if args.force and not args.report:
                run.set_aside_changes()
            finished = args.report or run.run()
            missing = [
                name for name, outcome in run.outcomes.items() if outcome.state != 'finished'
            ]
            if missing:
                print(f'not finished: {", ".join(missing)}', file=sys.stderr)
            print(draw_ladder(ladder, args.work_dir, run.records(), args.metric, args.shape))
    except KeyboardInterrupt:
        sys.exit('run_ladder: stopped. The same command goes on from here.')
    print(f'wrote {args.work_dir / "tradeoff.png"} and {args.work_dir / "tradeoff.csv"}')
    sys.exit(not finished)


if __name__ == '__main__':
    main()
