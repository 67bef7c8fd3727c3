"""Read the work folder of an OpenMMLab training: config, curves, results, checkpoint, images."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .metrics import larger_is_better
from .run_files import (
    Evaluation,
    Latency,
    config_name,
    config_of_run,
    find_config,
    find_runs,
    find_seed,
    newest_checkpoint,
    read_config,
    read_latencies,
    read_stamp_of,
    read_tests,
    readable_configs,
)
from .run_images import RunImages, find_images
from .run_logs import Curve, join_logs, read_log, sort_entries

__all__ = ['NoResultsError', 'WorkDir', 'read_work_dir']


class NoResultsError(FileNotFoundError):
    """A work folder holds no result.

    Args:
        path: The folder.
        notes: What could not be read, in full sentences.
    """

    def __init__(self, path: str | Path, notes: list[str]) -> None:
        self.notes = notes
        super().__init__(
            f'read_work_dir: a work folder must hold TIME/vis_data/scalars.json of a training or '
            f'TIME/TIME.json of a test, got neither in {path}. {" ".join([*notes, ""])}Train with '
            f"mmengine's LocalVisBackend, or run tools/test.py with --work-dir {path}."
        )


@dataclass
class WorkDir:
    """A work folder, read by :func:`read_work_dir`.

    Attributes:
        path: The folder.
        config: The config of the latest training that logged an iteration, or of the latest run
            with results if there is none.
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
        return read_latencies(self.path, self.config, self.notes)

    @cached_property
    def checkpoint(self) -> Path | None:
        """The latest checkpoint in the folder, even if the folder was moved; None without one."""
        return newest_checkpoint(self.path)

    @cached_property
    def stamp(self) -> dict[str, Any]:
        """The stamp ``meta['mmwcc']`` that mmwcc's hooks wrote into the latest checkpoint.

        It is empty without a checkpoint, or if the checkpoint has none.
        """
        return {} if self.checkpoint is None else read_stamp_of(self.checkpoint, self.notes)

    @cached_property
    def images(self) -> RunImages:
        """The images that were drawn during the runs: predictions and other figures."""
        configs = readable_configs(self.runs, self.notes)
        return find_images(self.path, [self.config, *configs])


def read_work_dir(path: str | Path) -> WorkDir:
    """Read all time-stamped runs of a work folder, and join resumed runs to those they continue.

    If two runs logged the same iterations, the later run counts from its first iteration on. A
    later training that did not resume replaces the earlier one. Log lines that are not valid JSON,
    such as those of a killed process, are skipped with a note.

    Args:
        path: The folder; tools/train.py writes ``work_dirs/<config name>`` by default.

    Raises:
        FileNotFoundError: If the folder does not exist or has no config.
        NoResultsError: If it has neither logs nor tests. It is a FileNotFoundError.
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
    runs = find_runs(folder)
    notes: list[str] = []
    logs = {run: read_log(run / 'vis_data' / 'scalars.json', notes) for run in runs}
    trainings = [run for run in runs if any('iter' in entry for entry in logs[run])]
    tests = read_tests(runs, notes)
    tested = {test.run for test in tests}
    # A run that was refused has a config as well, but no results.
    with_results = trainings or [run for run in runs if logs[run] or run.name in tested]
    config_file = find_config(folder, with_results or runs)
    work_dir = WorkDir(
        folder, read_config(config_file), config_name(folder, config_file), runs=runs, notes=notes
    )
    work_dir.tests = tests
    if not with_results:
        raise NoResultsError(path, notes)
    if trainings:
        joined = join_logs([(config_of_run(run), logs[run]) for run in trainings])
        work_dir.losses, work_dir.metrics, work_dir.scalars = sort_entries(joined)
        work_dir.seed = find_seed(work_dir.config, trainings[-1])
    return work_dir
