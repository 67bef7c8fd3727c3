"""Build the config of one point of a ladder, and compare settings to detect changes."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmwcc.compression import CompressionConfig
from mmwcc.presets import compress, preset, quantizer_optim
from mmwcc.utils import CONFIG_SUFFIXES, LaunchError, is_address

from .plan import Ladder, Point, Step

__all__ = ['build_config', 'differences', 'file_fingerprint', 'fingerprint', 'settings_of']

# A point stays the same if it is trained in another place or from a file with another name. The
# contents of that file are compared.
_PLACES = ('work_dir', 'load_from', 'resume', 'launcher')


def build_config(
    ladder: Ladder, step: Step, folder: Path, start: str, teacher: str | None = None
) -> Config:
    """Return the config of a point: dense config, recipe, overrides, compression, seed.

    Args:
        ladder: The ladder.
        step: Point and seed.
        folder: Its work folder.
        start: Checkpoint that it starts from.
        teacher: Checkpoint of the network that it is distilled from. Defaults to None.

    Raises:
        LaunchError: If the compression is in a file that does not exist.
        ValueError: If the compression is not valid.
    """
    point = step.point
    config = copy.deepcopy(_read(ladder.config))
    config.merge_from_dict(ladder.recipe)
    config.merge_from_dict(point.overrides)
    if point.compression is not None:
        compression = _compression(ladder, point)
        CompressionConfig.parse(compression)
        config.model = compress(config.model, compression)
        if point.train:
            config.optim_wrapper = quantizer_optim(config.optim_wrapper)
    if point.schedule is not None:
        config.default_hooks.compression_schedule = _schedule(point.schedule, config.train_cfg)
    if point.distillation is not None:
        config.default_hooks.distillation = dict(
            point.distillation, type='mmwcc.DistillationHook', checkpoint=teacher
        )
    if step.seed is not None:
        config.randomness = dict(config.get('randomness') or {}, seed=step.seed)
    config.work_dir, config.load_from, config.resume = str(folder), start, False
    return config


@cache
def _read(path: Path) -> Config:
    # Convert it to plain data, because it will be written to a file: the classes of a pure-Python
    # config become their import paths.
    config = Config.fromfile(path)
    return Config(config.to_dict(), filename=config.filename)


def _compression(ladder: Ladder, point: Point) -> dict:
    if isinstance(point.compression, dict):
        return point.compression
    name = str(point.compression)
    if Path(name).suffix not in CONFIG_SUFFIXES:
        return preset(name, **point.changes)
    file = ladder.path.parent / name
    if not file.is_file():
        raise LaunchError(
            f'the compression of point {point.name} is to be in {file}, which does not exist. '
            'tools/analysis_tools/sensitivity.py writes such files.'
        )
    config = Config.fromfile(file)
    config.merge_from_dict({f'compression.{key}': value for key, value in point.changes.items()})
    return config.compression.to_dict()


def _schedule(schedules: Mapping[str, Mapping], train_cfg: Mapping) -> dict:
    """Convert fractions of a training into iterations or epochs."""
    by_epoch = 'max_epochs' in train_cfg
    length = train_cfg['max_epochs' if by_epoch else 'max_iters']
    hook = dict(type='mmwcc.CompressionScheduleHook', by_epoch=by_epoch)
    for quantity, schedule in schedules.items():
        hook[quantity] = {
            **schedule,
            **{key: round(schedule[key] * length) for key in ('begin', 'end')},
        }
    return hook


def settings_of(config: Config, point: Point, origins: Mapping[str, str]) -> dict[str, Any]:
    """Return, as plain data, all settings that determine the result of a point.

    Args:
        config: What :func:`build_config` returned.
        point: The point.
        origins: Fingerprints of what it starts from and is distilled from, by role.
    """
    settings = {key: value for key, value in config.to_dict().items() if key not in _PLACES}
    if 'distillation' in settings.get('default_hooks', {}):
        settings['default_hooks']['distillation'].pop('checkpoint')
    settings['ladder'] = dict(train=point.train, calibration=point.calibration, **origins)
    return json.loads(json.dumps(settings, default=str))


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Return a short identifier that differs for different settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def file_fingerprint(path: str) -> str:
    """Return a short identifier for the content of a file, or the address if it is not local."""
    if is_address(path):
        return path
    return hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()[:16]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Describe the differences between two settings, one key per line."""
    old, new = dict(_leaves(old)), dict(_leaves(new))
    return [
        f'{key} was {old.get(key, "absent")}, is {new.get(key, "absent")}'
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key)
    ]


def _leaves(value: Any, prefix: str = '') -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f'{prefix}.{key}' if prefix else str(key))
    else:
        yield prefix, json.dumps(value)
