"""Read configs, test results, latencies and checkpoints of a work folder.

Files may be damaged, because processes are killed while they write. What cannot be read is skipped
and becomes a note, in full sentences.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmwcc.checkpoint import compression_on_record, read_stamp
from mmwcc.messages import cause
from mmwcc.registry import type_name

from .run_logs import is_result

__all__ = [
    'Evaluation',
    'Latency',
    'config_name',
    'config_of_run',
    'find_config',
    'find_runs',
    'find_seed',
    'newest_checkpoint',
    'read_config',
    'read_latencies',
    'read_stamp_of',
    'read_tests',
    'readable_configs',
]

_TIME = re.compile(r'\d{8}_\d{6}')


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


def find_runs(folder: Path) -> list[Path]:
    """Return the time-stamped folders of runs in a work folder, oldest first."""
    return sorted(entry for entry in folder.iterdir() if _TIME.match(entry.name) and entry.is_dir())


def find_config(folder: Path, runs: list[Path]) -> Path:
    """Return the config of the latest run, otherwise one in the folder itself.

    A run that is refused leaves its config in the folder, too. So a config in the folder is taken
    if the newest checkpoint was trained with its compression, or else if it is the newest.

    Raises:
        FileNotFoundError: If there is none.
    """
    recorded = [run / 'vis_data' / 'config.py' for run in reversed(runs)]
    found = next((file for file in recorded if file.is_file()), None)
    if found is not None:
        return found
    dumped = sorted(folder.glob('*.py'), key=lambda file: file.stat().st_mtime, reverse=True)
    if not dumped:
        raise FileNotFoundError(
            f'read_work_dir: a work folder must hold its config, got none in {folder}. mmengine '
            'writes it as <config name>.py and as TIME/vis_data/config.py; copy one of them there.'
        )
    return dumped[0] if len(dumped) == 1 else _of_checkpoint(folder, dumped)


def _of_checkpoint(folder: Path, files: list[Path]) -> Path:
    """Return the first config that compresses as the newest checkpoint does, or else the first."""
    checkpoint = newest_checkpoint(folder)
    stamp = {} if checkpoint is None else read_stamp_of(checkpoint, [])
    for file in files if 'compression' in stamp else ():
        with suppress(ValueError, TypeError):
            if compression_on_record(read_config(file)) == stamp['compression']:
                return file
    return files[0]


def read_config(file: Path) -> Config:
    """Read a config.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        return Config.fromfile(file)
    except Exception as error:  # the Python code of a config may raise anything
        raise ValueError(
            f'read_work_dir: the config {file} must be readable, got {cause(error)}. '
            'Restore it from a copy.'
        ) from error


def config_of_run(run: Path) -> Mapping[str, Any]:
    """Return the config that a run recorded, or an empty one if there is none."""
    file = run / 'vis_data' / 'config.py'
    return read_config(file) if file.is_file() else {}


def readable_configs(runs: list[Path], notes: list[str]) -> list[Mapping[str, Any]]:
    """Return the configs that runs recorded, without those that cannot be read."""
    configs = []
    for run in runs:
        try:
            configs.append(config_of_run(run))
        except ValueError as error:
            notes.append(str(error))
    return configs


def config_name(folder: Path, file: Path) -> str:
    """Return the original name of the config; visualizers always call their copy config.py."""
    if file.parent == folder:
        return file.stem
    content = file.read_bytes()
    dumped = sorted(
        folder.glob('*.py'), key=lambda path: (path.read_bytes() != content, path.stat().st_mtime)
    )
    return dumped[0].stem if dumped else folder.resolve().name


def find_seed(config: Config, run: Path) -> int | None:
    """Return the seed in the config, otherwise the one that mmengine drew and logged."""
    seed = (config.get('randomness') or {}).get('seed')
    if seed is None:
        for log in run.glob('*.log'):
            match = re.search(
                r'^\s*seed: (\d+)$', log.read_text(errors='replace')[:20000], re.MULTILINE
            )
            seed = int(match.group(1)) if match else None
    return seed


def read_tests(runs: list[Path], notes: list[str]) -> list[Evaluation]:
    """Return what tools/test.py wrote into TIME/TIME.json, oldest first."""
    tests = []
    for run in runs:
        file = run / f'{run.name}.json'
        if not file.is_file():
            continue
        try:
            content = json.loads(file.read_text(encoding='utf-8'))
            metrics = {
                name: float(value) for name, value in content.items() if is_result(name, value)
            }
        except (ValueError, AttributeError, RecursionError):  # no JSON, or no dictionary
            notes.append(f'{file} could not be read and was skipped.')
            continue
        if metrics:
            tests.append(Evaluation(run.name, metrics))
    return tests


def read_latencies(folder: Path, config: Config, notes: list[str]) -> list[Latency]:
    """Return the latest measurements of mmwcc.BenchmarkHook, one for each shape."""
    names = [
        hook.get('out_file')
        for hook in (config.get('default_hooks') or {}).values()
        if hook and type_name(hook.get('type')) == 'mmwcc.BenchmarkHook'
    ]
    file = folder / ((names and names[0]) or 'benchmark.json')
    if not file.is_file():
        return []
    try:
        return _latencies(json.loads(file.read_text(encoding='utf-8')))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        notes.append(f'{file} could not be read ({type(error).__name__}: {error}) and was skipped.')
        return []


def _latencies(content: dict) -> list[Latency]:
    newest = max(row['iter'] for row in content['rows'])
    rows = {
        (row['contender'], tuple(row['shape'])): row
        for row in content['rows']
        if row['iter'] == newest
    }
    about = content['environment']
    machine = f'{about["device"]}, {about["threads"]} threads, {about["dtype"]}'
    found = []
    for (contender, shape), row in rows.items():
        if contender == 'model':
            dense = rows.get(('dense', shape))
            median, p95, memory = (
                float(row[key]) for key in ('latency_ms', 'p95_ms', 'peak_memory_mib')
            )
            twin = None if dense is None else float(dense['latency_ms'])
            found.append(Latency(shape, median, p95, memory, twin, machine))
    return found


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the latest checkpoint in a folder, even if the folder was moved; None without one."""
    pointer = folder / 'last_checkpoint'
    if pointer.is_file():
        latest = folder / Path(pointer.read_text(errors='replace').strip()).name
        # A damaged pointer may hold a name that no file system accepts.
        if latest.name in {file.name for file in folder.glob('*.pth')}:
            return latest
    files = [file for file in folder.glob('*.pth') if not file.name.startswith('best_')]
    return max(files, key=lambda file: file.stat().st_mtime, default=None)


def read_stamp_of(checkpoint: Path, notes: list[str]) -> dict[str, Any]:
    """Return the stamp ``meta['mmwcc']`` of a checkpoint, empty if there is none."""
    import torch

    try:
        return read_stamp(torch.load(checkpoint, map_location='meta'))
    except Exception as error:  # a damaged checkpoint may raise anything
        notes.append(
            f'The checkpoint {checkpoint} could not be read ({type(error).__name__}), so bits and '
            'kept fractions are those of the config.'
        )
        return {}
