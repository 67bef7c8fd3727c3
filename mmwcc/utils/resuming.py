"""Check whether training can resume from a checkpoint as if it had never stopped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import CheckpointLoader, Runner
from mmengine.runner.base_loop import BaseLoop

from mmwcc.checkpoint import latest_checkpoint

from .launch import LaunchError, check_checkpoint

__all__ = ['check_resumable', 'nothing_resumed', 'refuse_new_start', 'resume_hint']

_REMEDY = (
    'Start a new run from its weights (load_from with resume=False), or resume from a checkpoint '
    'that CheckpointHook saved with save_optimizer=True and save_param_scheduler=True. Published, '
    'calibrated and converted checkpoints hold weights only.'
)


def check_resumable(path: str, cfg: Config) -> None:
    """Reject a checkpoint that lacks what resuming needs, before a run is set up.

    Args:
        path: A checkpoint.
        cfg: Config of the training run.

    Raises:
        LaunchError: If the checkpoint is not usable (see :func:`check_checkpoint`) or lacks a part.
    """
    check_checkpoint(path)
    # Other runners, e.g. for sharded models, may store the parts elsewhere.
    if 'runner_type' in cfg:
        return
    checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='silent')
    missing = _missing(checkpoint, cfg.get('param_scheduler') is not None)
    if missing and not _is_over(checkpoint, cfg.get('train_cfg') or {}):
        raise LaunchError(
            f'Training cannot be resumed from {path}, which does not hold {missing}: it would '
            f'start anew. {_REMEDY}'
        )


def refuse_new_start(hook: str, runner: Runner, checkpoint: Mapping[str, Any]) -> None:
    """Refuse to resume where mmengine would silently restart the optimizer or the schedules.

    Call this while a checkpoint is loaded. It accepts any checkpoint if only weights are loaded or
    if the training is over.

    Args:
        hook: Name of the hook that the error message begins with.
        runner: The runner that loads the checkpoint.
        checkpoint: The checkpoint.

    Raises:
        RuntimeError: If the checkpoint lacks a part, or its schedules are not those of the run.
    """
    # Other runners, e.g. for sharded models, may store the parts elsewhere.
    if not isinstance(runner, Runner):
        return
    resumes = runner._resume and not runner._has_loaded and isinstance(runner._train_loop, BaseLoop)
    if not resumes or _is_over(checkpoint, dict(max_iters=runner.max_iters)):
        return
    missing = _missing(checkpoint, runner.param_schedulers is not None)
    if missing:
        raise RuntimeError(
            f'{hook}: {resume_hint(runner)}to resume, a checkpoint must hold {missing}, got one '
            f'without: it would start anew. {_REMEDY}'
        )
    # mmengine itself logs that it skips the schedules of the checkpoint.
    if runner.param_schedulers is None:
        return
    theirs, ours = map(_units, (checkpoint.get('param_schedulers'), runner.param_schedulers))
    if theirs != ours:
        raise RuntimeError(
            f'{hook}: {resume_hint(runner)}to resume, a run must have the parameter schedules of '
            f'the checkpoint, got {ours} in the run and {theirs} in the checkpoint, which would '
            'replace them. Resume with the config that the run was started with, or start a new '
            'run (load_from with resume=False).'
        )


def resume_hint(runner: Any) -> str:
    """Return how to resume the run itself, or '' where that is what the runner does.

    mmengine resumes from ``load_from`` if a config sets it, although a compressed config sets it to
    the checkpoint that training starts from. This comes before all other advice in a message.
    """
    start = runner._load_from
    if not (runner._resume and start) or _is_in(runner.work_dir, start):
        return ''
    if latest_checkpoint(runner.work_dir):
        remedy = (
            f'To continue the run in {runner.work_dir}, set load_from=None (on the command line: '
            '--cfg-options load_from=None).'
        )
    else:
        remedy = (
            f'There is no run to continue in {runner.work_dir}: to start one from that file, leave '
            'out --resume (resume=False).'
        )
    return (
        f'because load_from is set, resume=True resumes from {start}. {remedy} That file '
        'does not fit: '
    )


def nothing_resumed(runner: Any) -> str:
    """Describe a training that was to be resumed and has loaded nothing, or return ''.

    mmengine then trains the weights that the model was built with, and gives a line of information.

    Args:
        runner: A runner that is about to begin its training.
    """
    if not runner._resume or runner._has_loaded:
        return ''
    return (
        f'resume=True found no checkpoint in {runner.work_dir}, and load_from is not set, so this '
        'training starts anew, with the initial weights of the model. To start from a trained '
        'network, set load_from and leave out --resume. To continue a run, give its work_dir.'
    )


def _is_in(folder: str, path: str) -> bool:
    return Path(path).expanduser().absolute().parent == Path(folder).absolute()


def _missing(checkpoint: Mapping[str, Any], scheduled: bool) -> str:
    """Name what a checkpoint lacks for resuming, or return an empty string."""
    meta = checkpoint.get('meta') or {}
    parts = {
        'the iteration and epoch': 'iter' in meta and 'epoch' in meta,
        'the log history (message_hub)': 'message_hub' in checkpoint,
        'the state of the optimizer': 'optimizer' in checkpoint,
        'the state of the parameter schedules': 'param_schedulers' in checkpoint or not scheduled,
    }
    *others, last = [part for part, there in parts.items() if not there] or ['']
    return f'{", ".join(others)} and {last}' if others else last


def _is_over(checkpoint: Mapping[str, Any], length: Mapping[str, Any]) -> bool:
    """Tell whether a checkpoint marks the end of a training of max_iters or max_epochs."""
    meta = checkpoint.get('meta') or {}
    return any(
        length.get(key) and meta.get(unit, 0) >= length[key]
        for unit, key in (('iter', 'max_iters'), ('epoch', 'max_epochs'))
    )


def _units(schedulers) -> list[str] | dict[str, Any]:
    """Return the units that schedules count in.

    The schedules may be objects or their states, for one optimizer or for several by name.
    """
    if isinstance(schedulers, Mapping):
        return {name: _units(of_one) for name, of_one in schedulers.items()}
    flags = [
        state['by_epoch'] if isinstance(state, Mapping) else state.by_epoch
        for state in schedulers or ()
    ]
    return ['epochs' if by_epoch else 'iterations' for by_epoch in flags]
