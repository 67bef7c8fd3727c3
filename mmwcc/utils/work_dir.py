"""Protect the checkpoints of a dense network from the run that compresses it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.runner import CheckpointLoader

from mmwcc.checkpoint import latest_checkpoint, read_stamp, recorded_layers, write_stamp
from mmwcc.compression import compare

from .launch import LaunchError, check_checkpoint

__all__ = ['refuse_occupied_work_dir']


def refuse_occupied_work_dir(owner: str, runner: Any) -> None:
    """Refuse to train a compressed model among the checkpoints of another model.

    A compressed config inherits ``work_dir`` from the dense config if that sets it. The checkpoints
    of both runs have the same names.

    Args:
        owner: Name that the error message begins with.
        runner: A runner whose model is compressed, before its training.

    Raises:
        RuntimeError: If the latest checkpoint in the work folder is that of a dense model, or that
            of another config with another compression.
    """
    path = latest_checkpoint(runner.work_dir)
    if path is None:
        return
    try:
        check_checkpoint(path)
    except LaunchError:  # it is missing or damaged, so nothing is lost
        return
    checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='silent')
    what = _other_model(runner, checkpoint)
    if what:
        raise RuntimeError(
            f'{owner}: a compressed model must be trained in a folder of its own, got work_dir='
            f'{str(runner.work_dir)!r}, where {Path(path).name} is the checkpoint of {what}. This '
            'run would overwrite it. Set another work_dir in the compressed config, which may '
            'inherit this one, or give --work-dir.'
        )


def _other_model(runner: Any, checkpoint: Mapping[str, Any]) -> str:
    """Describe the model of a checkpoint, or return '' if this run may replace it."""
    weights = checkpoint.get('state_dict', checkpoint)
    if not compare(weights, runner.model, recorded_layers(checkpoint)).in_checkpoint:
        return 'a dense model'
    present: dict = dict(meta=dict(experiment_name=runner.experiment_name))
    write_stamp(present, runner.model, runner.cfg)
    theirs, ours = (read_stamp(each).get('compression') for each in (checkpoint, present))
    # Somebody who edits a config and runs it again means to replace the earlier result.
    if theirs in (None, ours) or _config_name(checkpoint) == _config_name(present):
        return ''
    return f'{_config_name(checkpoint)}, which compresses otherwise'


def _config_name(checkpoint: Mapping[str, Any]) -> str:
    """Return the name of the config that a checkpoint was trained with."""
    # mmengine appends the time at which the run began.
    name = (checkpoint.get('meta') or {}).get('experiment_name') or ''
    return re.sub(r'_?\d{8}_\d{6}$', '', name)
