"""Read the logs of mmengine runs: one JSON object per line, as written by LocalVisBackend."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ['Curve', 'is_result', 'join_logs', 'read_log', 'sort_entries']

_CLOCKS = ('time', 'data_time')
_PLACES = ('step', 'iter', 'epoch')
_BOOKKEEPING = {*_PLACES, 'memory', *_CLOCKS}


@dataclass
class Curve:
    """One scalar over a training run.

    Attributes:
        steps: Steps at which it was recorded, ascending.
        values: The values.
        unit: Unit of ``steps``: 'iteration' or 'epoch'.
    """

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    unit: str = 'iteration'


def read_log(file: Path, notes: list[str]) -> list[dict]:
    """Return the entries of a log, or none if the file does not exist.

    If some entries cannot be read, their number is added to ``notes``.
    """
    if not file.is_file():
        return []
    entries, unreadable = [], 0
    for line in file.read_text(encoding='utf-8', errors='replace').splitlines():
        try:
            entry = json.loads(line) if line.strip() else {}
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict) or not _has_steps(entry):
            unreadable += 1
        elif 'step' in entry or 'iter' in entry:
            entries.append(entry)
    if unreadable:
        notes.append(
            f'{unreadable} of the lines of {file} could not be read and were skipped; a process '
            'that is killed while it writes leaves such a line.'
        )
    return entries


def _has_steps(entry: dict) -> bool:
    """Tell whether the steps of an entry are whole numbers."""
    return all(isinstance(entry[place], int) for place in _PLACES if place in entry)


def join_logs(runs: Sequence[tuple[Mapping[str, Any], list[dict]]]) -> list[dict]:
    """Merge the entries of several trainings into one, each with the ``unit`` that its step counts.

    Args:
        runs: Config and entries of each training, oldest first. An empty config means that it is
            not on record; such a run is treated as resumed. Each training has at least one entry.
    """
    joined: list[dict] = []
    for config, run_entries in runs:
        entries = _count_validations(run_entries, config)
        first = next(entry for entry in entries if 'iter' in entry)
        start = dict(iteration=first['iter'], epoch=first.get('epoch', 0))
        if config and not config.get('resume'):
            joined = []
        joined = [entry for entry in joined if entry['step'] < start[entry['unit']]] + entries
    return joined


def _count_validations(entries: list[dict], config: Mapping[str, Any]) -> list[dict]:
    """Determine what the step of every entry counts, by the rules of LoggerHook.

    Validations may be counted in epochs.
    """
    logger = (config.get('default_hooks') or {}).get('logger') or {}
    in_epochs = logger.get('log_metric_by_epoch', True)
    has_epochs = any('epoch' in entry for entry in entries)
    iteration, counted = 0, []
    for entry in entries:
        iteration = entry.get('iter', iteration)
        unit, step = 'iteration', entry.get('iter', entry.get('step'))
        if in_epochs and _is_validation(entry):
            # An iteration-based training stays in epoch 0, so the iteration logged before shows
            # when the validation ran.
            unit, step = ('epoch', step) if has_epochs else ('iteration', max(iteration, step))
        counted.append(dict(entry, step=step, unit=unit))
    return counted


def sort_entries(
    entries: Sequence[dict],
) -> tuple[dict[str, Curve], dict[str, Curve], dict[str, Curve]]:
    """Return the curves logged by training, by validation and by other hooks."""
    losses: dict[str, Curve] = {}
    metrics: dict[str, Curve] = {}
    scalars: dict[str, Curve] = {}
    for entry in entries:
        target = metrics if _is_validation(entry) else scalars
        if 'iter' in entry:
            target = losses
        for name, value in entry.items():
            if is_result(name, value):
                curve = target.setdefault(name, Curve(unit=entry['unit']))
                curve.steps.append(entry['step'])
                curve.values.append(float(value))
    return losses, metrics, scalars


def _is_validation(entry: dict) -> bool:
    """Tell whether an entry comes from a validation: it has times but no iteration of its own."""
    return 'iter' not in entry and any(clock in entry for clock in _CLOCKS)


def is_result(name: str, value: Any) -> bool:
    """Tell whether an item of an entry is a result of the model, not a time, memory or place."""
    if name in _BOOKKEEPING or isinstance(value, bool):
        return False
    # JSON has whole numbers of any size, which only a damaged log holds.
    return isinstance(value, float) or (isinstance(value, int) and abs(value) <= sys.float_info.max)
