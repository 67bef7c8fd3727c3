"""Read the work folder of an OpenMMLab training: config, curves, results, checkpoint, images."""

from __future__ import annotations

import json
import math
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import CheckpointHook

from mmwcc.checkpoint import read_stamp
from mmwcc.registry import type_name

from .run_logs import Curve, is_result, join_logs, read_log, sort_entries

__all__ = ['Evaluation', 'Latency', 'WorkDir', 'common_metric', 'larger_is_better', 'read_work_dir']

_STAMP = re.compile(r'\d{8}_\d{6}')
# The metrics that papers of the field report first, in this order.
_HEADLINES = ('mIoU', 'bbox_mAP', 'mAP', 'AP', 'top1', 'PSNR')
_LESS = (*CheckpointHook._default_less_keys, 'error', 'rmse', 'mae', 'mse', 'abs_rel')
_GREATER = (*CheckpointHook._default_greater_keys, 'psnr', 'ssim')
_PICTURES = ('.png', '.jpg', '.jpeg')


@dataclass(frozen=True)
class Evaluation:
    """The results of one run of tools/test.py.

    Attributes:
        run: Name of its folder, which is the time it started.
        metrics: Value of every metric.
    """

    run: str
    metrics: dict[str, float]


@dataclass(frozen=True)
class Latency:
    """The latest measurement of mmwcc.BenchmarkHook for one input.

    Attributes:
        shape: Shape of the input, including its batch.
        median: Median time of a batch, in ms.
        p95: 95th percentile of these times, in ms.
        memory: Peak memory of the activations, in MiB.
        dense: Median time of the model without compression, None if it was not measured.
        machine: Description of the machine.
    """

    shape: tuple[int, ...]
    median: float
    p95: float
    memory: float
    dense: float | None
    machine: str


@dataclass
class WorkDir:
    """A work folder, read by :func:`read_work_dir`.

    Attributes:
        path: The folder.
        config: The config of the latest training, or of the latest test if nothing was trained.
        config_name: Name of the config file, without its suffix.
        losses: What training logged, by name: losses, learning rate, accuracies on the training
            data.
        metrics: What validation measured, by name.
        scalars: What other hooks recorded, by name.
        tests: The runs of tools/test.py, oldest first.
        runs: The folders of all runs, oldest first.
        seed: The seed of the latest training, None if it is not on record.
        notes: What could not be read, in full sentences.
    """

    path: Path
    config: Config
    config_name: str
    losses: dict[str, Curve] = field(default_factory=dict)
    metrics: dict[str, Curve] = field(default_factory=dict)
    scalars: dict[str, Curve] = field(default_factory=dict)
    tests: list[Evaluation] = field(default_factory=list)
    runs: list[Path] = field(default_factory=list)
    seed: int | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.resolve().name

    def metric_names(self) -> list[str]:
        """Return the names of all metrics of validation and tests, in order of first appearance."""
        return list(
            dict.fromkeys([*self.metrics, *(name for test in self.tests for name in test.metrics)])
        )

    def last(self, metric: str) -> float | None:
        """Return the last validation value of a metric, or None without one."""
        curve = self.metrics.get(metric)
        return curve.values[-1] if curve else None

    def best(self, metric: str) -> float | None:
        """Return the best validation value of a metric.

        Returns:
            The value, or None if there is none or it is not known which values are better.
        """
        larger = larger_is_better(metric)
        values = [
            value for value in self.metrics.get(metric, Curve()).values if not math.isnan(value)
        ]
        if larger is None or not values:
            return None
        return max(values) if larger else min(values)

    def tested(self, metric: str) -> float | None:
        """Return the value of a metric in the latest test that has it, or None without one."""
        return next(
            (test.metrics[metric] for test in reversed(self.tests) if metric in test.metrics), None
        )

    def result(self, metric: str) -> float | None:
        """Return the test value of a metric, else the last validation value, else None."""
        tested = self.tested(metric)
        return self.last(metric) if tested is None else tested

    @cached_property
    def latencies(self) -> list[Latency]:
        """The latest measurements of mmwcc.BenchmarkHook, one per shape."""
        hooks = (self.config.get('default_hooks') or {}).values()
        names = [
            hook.get('out_file')
            for hook in hooks
            if hook and type_name(hook.get('type')) == 'mmwcc.BenchmarkHook'
        ]
        file = self.path / ((names and names[0]) or 'benchmark.json')
        if not file.is_file():
            return []
        try:
            content = json.loads(file.read_text(encoding='utf-8'))
            newest = max(row['iter'] for row in content['rows'])
            rows = {
                (row['contender'], tuple(row['shape'])): row
                for row in content['rows']
                if row['iter'] == newest
            }
            about = content['environment']
            machine = f'{about["device"]}, {about["threads"]} threads, {about["dtype"]}'
            return [
                Latency(
                    shape,
                    row['latency_ms'],
                    row['p95_ms'],
                    row['peak_memory_mib'],
                    rows.get(('dense', shape), {}).get('latency_ms'),
                    machine,
                )
                for (contender, shape), row in rows.items()
                if contender == 'model'
            ]
        except (ValueError, KeyError, TypeError) as error:
            self.notes.append(
                f'{file} could not be read ({type(error).__name__}: {error}) and was skipped.'
            )
            return []

    @cached_property
    def checkpoint(self) -> Path | None:
        """The latest checkpoint in the folder, even if the folder was moved; None without one."""
        pointer = self.path / 'last_checkpoint'
        if pointer.is_file():
            latest = self.path / Path(pointer.read_text().strip()).name
            if latest.is_file():
                return latest
        files = [file for file in self.path.glob('*.pth') if not file.name.startswith('best_')]
        return max(files, key=lambda file: file.stat().st_mtime, default=None)

    @cached_property
    def stamp(self) -> dict[str, Any]:
        """The stamp ``meta['mmwcc']`` that mmwcc's hooks wrote into the latest checkpoint.

        It is empty without a checkpoint, or if the checkpoint has none.
        """
        if self.checkpoint is None:
            return {}
        import torch

        try:
            content = torch.load(self.checkpoint, map_location='meta')
        except (
            OSError,
            EOFError,
            RuntimeError,
            KeyError,
            ValueError,
            pickle.UnpicklingError,
        ) as error:
            self.notes.append(
                f'The checkpoint {self.checkpoint} could not be read ({type(error).__name__}), so bits '
                'and kept fractions are those of the config.'
            )
            return {}
        return read_stamp(content)

    @cached_property
    def pictures(self) -> dict[str, Path]:
        """Images drawn by visualizers, by name without the step, and only the newest of each."""
        found: dict[str, Path] = {}
        for file in sorted(
            self.path.rglob('*'), key=lambda file: (file.stat().st_mtime, _digits(file.stem))
        ):
            if file.suffix.lower() in _PICTURES and file.is_file():
                # LocalVisBackend appends the step. Other names may end in a number that belongs to
                # them.
                found[
                    re.sub(r'_\d+$', '', file.stem)
                    if file.parent.name == 'vis_image'
                    else file.stem
                ] = file
        return found


def read_work_dir(path: str | Path) -> WorkDir:
    """Read all time-stamped runs of a work folder, and join resumed runs to those they continue.

    If two runs logged the same iterations, the later run counts from its first iteration on. A
    later training that did not resume replaces the earlier one. Log lines that are not valid JSON,
    such as those of a killed process, are skipped with a note.

    Args:
        path: The folder; tools/train.py writes ``work_dirs/<config name>`` by default.

    Raises:
        FileNotFoundError: If the folder does not exist, has no config, or has neither logs nor
            tests.
        ValueError: If the config cannot be read.

    Example:
        >>> work_dir = read_work_dir('work_dirs/my_config')
        >>> work_dir.result('mIoU'), work_dir.losses['loss'].values[-1]
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(
            f'read_work_dir: path must be a work folder, got {path}, which is not a folder. Name '
            'the folder that tools/train.py wrote, work_dirs/<config name> by default.'
        )
    runs = sorted(
        entry for entry in folder.iterdir() if entry.is_dir() and _STAMP.match(entry.name)
    )
    notes: list[str] = []
    logs = {run: read_log(run / 'vis_data' / 'scalars.json', notes) for run in runs}
    trainings = [run for run in runs if any('iter' in entry for entry in logs[run])]
    config_file = _find_config(folder, trainings or runs)
    work_dir = WorkDir(
        folder, _read_config(config_file), _config_name(folder, config_file), runs=runs, notes=notes
    )
    work_dir.tests = _read_tests(runs, notes)
    if not any(logs.values()) and not work_dir.tests:
        raise FileNotFoundError(
            f'read_work_dir: a work folder must hold TIME/vis_data/scalars.json of a training or TIME/TIME.json of a '
            f"test, got neither in {path}. Train with mmengine's LocalVisBackend, or run tools/test.py with "
            f'--work-dir {path}.'
        )
    if trainings:
        joined = join_logs([(_config_of_run(run), logs[run]) for run in trainings])
        work_dir.losses, work_dir.metrics, work_dir.scalars = sort_entries(joined)
        work_dir.seed = _find_seed(work_dir.config, trainings[-1])
    return work_dir


def larger_is_better(metric: str) -> bool | None:
    """Tell whether larger values of a metric are better, by the rules of mmengine's CheckpointHook.

    Returns:
        True or False, or None if it is not known.

    Example:
        >>> larger_is_better('coco/bbox_mAP'), larger_is_better('val_loss'), larger_is_better('energy')
        (True, False, None)
    """
    name = metric.lower()
    if any(key.lower() in name for key in _LESS):
        return False
    return True if any(key.lower() in name for key in _GREATER) else None


def common_metric(work_dirs: list[WorkDir], wanted: str | None = None) -> str | None:
    """Return the metric by which to compare work folders: one that as many as possible have.

    Args:
        work_dirs: What :func:`read_work_dir` returned.
        wanted: Name of the metric. Defaults to None: the metric by which mmengine would choose the
            best checkpoint, with mIoU, mAP, top1 and the like first.

    Returns:
        Its name, or None if no folder has a metric.

    Raises:
        ValueError: If no folder has the wanted metric.
    """
    names = [name for work_dir in work_dirs for name in work_dir.metric_names()]
    if wanted is not None:
        if wanted not in names:
            raise ValueError(
                f'common_metric: metric must be one of {", ".join(dict.fromkeys(names)) or "none"}, got '
                f'{wanted!r}. Use one that a work folder has.'
            )
        return wanted

    def rank(name: str) -> tuple[int, int]:
        headline = name.rpartition('/')[2]
        return -names.count(name), _HEADLINES.index(headline) if headline in _HEADLINES else len(
            _HEADLINES
        )

    return min(dict.fromkeys(names), key=rank, default=None)


def _digits(text: str) -> int:
    """Return the number at the end of a name, or -1 without one."""
    match = re.search(r'(\d+)$', text)
    return int(match.group(1)) if match else -1


def _find_config(folder: Path, runs: list[Path]) -> Path:
    """Return the config of the latest run, otherwise the one in the folder itself."""
    candidates = [run / 'vis_data' / 'config.py' for run in reversed(runs)]
    candidates += sorted(folder.glob('*.py'), key=lambda file: file.stat().st_mtime, reverse=True)
    found = next((file for file in candidates if file.is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f'read_work_dir: a work folder must hold its config, got none in {folder}. mmengine '
            'writes it as <config name>.py and as TIME/vis_data/config.py; copy one of them there.'
        )
    return found


def _read_config(file: Path) -> Config:
    try:
        return Config.fromfile(file)
    except Exception as error:  # the Python code of a config may raise anything
        raise ValueError(
            f'read_work_dir: the config {file} must be readable, got {type(error).__name__}: {error}. '
            'Restore it from a copy.'
        ) from error


def _config_of_run(run: Path) -> Mapping[str, Any]:
    """Return the config that a run recorded, or an empty one if there is none."""
    file = run / 'vis_data' / 'config.py'
    return _read_config(file) if file.is_file() else {}


def _config_name(folder: Path, file: Path) -> str:
    """Return the original name of the config; visualizers always call their copy config.py."""
    if file.parent == folder:
        return file.stem
    dumped = sorted(
        folder.glob('*.py'),
        key=lambda path: (path.read_text() != file.read_text(), path.stat().st_mtime),
    )
    return dumped[0].stem if dumped else folder.resolve().name


def _read_tests(runs: list[Path], notes: list[str]) -> list[Evaluation]:
    """Return what tools/test.py wrote into TIME/TIME.json."""
    tests = []
    for run in runs:
        file = run / f'{run.name}.json'
        if not file.is_file():
            continue
        try:
            content = json.loads(file.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError):
            notes.append(f'{file} could not be read and was skipped.')
            continue
        metrics = {name: float(value) for name, value in content.items() if is_result(name, value)}
        if metrics:
            tests.append(Evaluation(run.name, metrics))
    return tests


def _find_seed(config: Config, run: Path) -> int | None:
    """Return the seed in the config, otherwise the one that mmengine drew and logged."""
    seed = (config.get('randomness') or {}).get('seed')
    if seed is None:
        for log in run.glob('*.log'):
            match = re.search(
                r'^\s*seed: (\d+)$', log.read_text(errors='replace')[:20000], re.MULTILINE
            )
            seed = int(match.group(1)) if match else None
    return seed
