"""Read a ladder file: its points, what each starts from, and the order to train them in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mmwcc.messages import did_you_mean
from mmwcc.utils import LaunchError, find_config, is_address, load_config

__all__ = ['Ladder', 'Point', 'Step', 'read_ladder']

_KEYS = ('config', 'checkpoint', 'recipe', 'points')
_CHECKPOINTS = ('.pth', '.safetensors')


@dataclass(frozen=True)
class Point:
    """One network of a ladder, which is one entry of ``points``.

    Attributes:
        name: Name of the point, also used in file names.
        compression: Name of a preset, path of a config with a ``compression`` (relative to the
            ladder), or the dictionary itself. Defaults to None, dense.
        changes: Keys of the preset to change, as for :func:`mmwcc.presets.preset`. Defaults to
            none.
        start: Name of the point, or path of the checkpoint, that its weights come from. Defaults to
            None, the checkpoint of the ladder.
        train: Whether to train. If False, a compressed network is only calibrated and tested, and a
            dense one is only tested. Defaults to True.
        calibration: Options of tools/analysis_tools/calibrate.py for ``train=False``, such as
            ``dict(images=8)``.
        schedule: Quantities and their schedules for mmwcc.CompressionScheduleHook, with ``begin``
            and ``end`` as fractions of the training. Defaults to None: compressed from the first
            iteration on.
        distillation: Arguments of mmwcc.DistillationHook. Its ``checkpoint`` may name a point, and
            defaults to that of the ladder. Defaults to None: no distillation.
        overrides: Changes to the config, made after the recipe. Defaults to nothing.
        series: Series of the plot that the point belongs to. Defaults to None: 'dense',
            'quantized', or 'WCC' with its bits.
        tags: Words to select the point by. Defaults to none.
    """

    name: str
    compression: str | dict | None = None
    changes: dict = field(default_factory=dict)
    start: str | None = None
    train: bool = True
    calibration: dict = field(default_factory=dict)
    schedule: dict | None = None
    distillation: dict | None = None
    overrides: dict = field(default_factory=dict)
    series: str | None = None
    tags: tuple[str, ...] = ()

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> Point:
        """Check one entry of ``points``.

        Raises:
            TypeError: If it is not a dict.
            ValueError: If it has no name, a name that cannot be used for a file, an unknown key, or
                keys that exclude each other.
        """
        if not isinstance(settings, Mapping):
            raise TypeError(
                f"ladder: a point must be a dict, got {settings!r}. Use dict(name='quant-w8a8', "
                "compression='quant_w8a8')."
            )
        settings = settings.to_dict() if hasattr(settings, 'to_dict') else dict(settings)
        name = settings.get('name')
        if not isinstance(name, str) or not name.replace('_', '').replace('-', '').isalnum():
            raise ValueError(
                'ladder: the name of a point must be made of letters, digits, - and _, got '
                f"{name!r}. Use name='quant-w8a8'."
            )
        for key in settings:
            _check_key(f'point {name}', key, [part.name for part in fields(cls)])
        point = cls(**{**settings, 'tags': tuple(settings.get('tags', ()))})
        for key in ('schedule', 'distillation') if not point.train else ():
            if getattr(point, key):
                raise ValueError(
                    f'ladder: point {name} must be trained to have a {key}, got train=False. Leave '
                    'out one of the two.'
                )
        if point.calibration and (point.train or not point.compression):
            raise ValueError(
                f'ladder: point {name} must be compressed and have train=False to be calibrated, '
                f'got calibration={point.calibration}. Use mmwcc.CalibrationHook in its overrides '
                'to calibrate before training.'
            )
        return point


@dataclass(frozen=True)
class Step:
    """A point with the seed that it is trained with.

    Attributes:
        point: The point.
        seed: The seed, or None if neither the point nor what it starts from is trained.
    """

    point: Point
    seed: int | None = None

    @property
    def name(self) -> str:
        """Name of the work folder."""
        return self.point.name if self.seed is None else f'{self.point.name}_seed{self.seed}'


@dataclass(frozen=True)
class Ladder:
    """A ladder file, read by :func:`read_ladder`.

    Attributes:
        path: The file.
        config: Path of the dense config.
        checkpoint: The dense checkpoint.
        recipe: The changes that all points make to the dense config.
        points: The points by name, in the order of the file.
    """

    path: Path
    config: Path
    checkpoint: str
    recipe: dict
    points: dict[str, Point]

    def origins(self, point: Point) -> list[str]:
        """Return what a point needs before it can begin: names of points, or checkpoints."""
        teacher = (
            []
            if point.distillation is None
            else [point.distillation.get('checkpoint') or self.checkpoint]
        )
        return [point.start or self.checkpoint, *teacher]

    def is_trained(self, point: Point) -> bool:
        """Tell whether a point depends on a seed."""
        return point.train or any(
            self.is_trained(self.points[origin])
            for origin in self.origins(point)
            if origin in self.points
        )

    def step(self, point: Point, seed: int) -> Step:
        """Return a point with a seed, or without one if it does not depend on it."""
        return Step(point, seed if self.is_trained(point) else None)

    def steps(self, seeds: Sequence[int] = (0,), only: Sequence[str] = ()) -> list[Step]:
        """Return all steps, each after the steps that it starts from.

        Args:
            seeds: Seeds to train with. Defaults to (0, ).
            only: Names of points, with the wildcards of file names, or tags. The points that these
                start from are included. Defaults to (), all.

        Raises:
            ValueError: If a pattern matches nothing.
        """
        chosen = [
            point
            for point in self.points.values()
            if not only
            or any(fnmatchcase(point.name, pattern) or pattern in point.tags for pattern in only)
        ]
        for pattern in only:
            if not any(
                fnmatchcase(point.name, pattern) or pattern in point.tags
                for point in self.points.values()
            ):
                tags = dict.fromkeys(tag for point in self.points.values() for tag in point.tags)
                raise ValueError(
                    f'ladder: --only {pattern} matches no point. Points: {", ".join(self.points)}. '
                    f'Tags: {", ".join(tags) or "none"}.'
                )
        steps = [
            self.step(point, seed)
            for seed in seeds
            for wanted in chosen
            for point in self._with_origins(wanted)
        ]
        return list({step.name: step for step in steps}.values())

    def _with_origins(self, point: Point, waiting: tuple[str, ...] = ()) -> Iterator[Point]:
        """Yield the points that a point needs, and then the point."""
        if point.name in waiting:
            raise ValueError(
                'ladder: points must not start from each other, got '
                f'{" <- ".join((*waiting, point.name))}. Let one of them start from a checkpoint.'
            )
        for origin in self.origins(point):
            if origin in self.points:
                yield from self._with_origins(self.points[origin], (*waiting, point.name))
            elif not origin.endswith(_CHECKPOINTS) and not is_address(origin):
                raise ValueError(
                    f'ladder: point {point.name} must start from another point or a '
                    f'checkpoint ({" or ".join(_CHECKPOINTS)}), got {origin!r}. '
                    f'{did_you_mean(origin, self.points)}'
                    f'Points: {", ".join(self.points)}.'
                )
        yield point


def read_ladder(path: str | Path, options: dict | None = None) -> Ladder:
    """Read a ladder: a config file with ``config``, ``checkpoint``, ``recipe`` and ``points``.

    Args:
        path: The file.
        options: Keys and values of ``--cfg-options``, such as ``{'recipe.train_cfg.max_iters':
            800}``. Defaults to None.

    Raises:
        LaunchError: If the file, the dense config or its package does not exist.
        TypeError: If a point is not a dict.
        ValueError: If a key is missing or unknown, two points have the same name, points start from
            each other, or a point starts from something that does not exist.
    """
    content = load_config(str(path), options)
    for key in content:
        # Names with an underscore are helpers of the ladder file.
        if key != 'launcher' and not key.startswith('_'):
            _check_key(str(path), key, _KEYS)
    for key in _KEYS:
        if not content.get(key):
            raise ValueError(
                f'ladder: {path} must have {key!r}. See docs/results/camvid.md for an example.'
            )
    points: dict[str, Point] = {}
    for point in map(Point.parse, content['points']):
        if point.name in points:
            raise ValueError(f'ladder: the names of points must differ, got {point.name!r} twice.')
        points[point.name] = point
    is_of_package = '::' in content.config
    config = find_config(content.config) if is_of_package else Path(path).parent / content.config
    if not config.is_file():
        raise LaunchError(
            f'{path} names the config {content.config}, but there is no {config}. Write the path '
            'as seen from the folder of the ladder.'
        )
    ladder = Ladder(Path(path), config, content.checkpoint, content.recipe.to_dict(), points)
    ladder.steps()  # rejects origins that do not exist or form a cycle
    return ladder


def _check_key(owner: str, key: str, known: Sequence[str]) -> None:
    if key not in known:
        raise ValueError(
            f'ladder: {owner} has an unknown key {key!r}. {did_you_mean(key, known)}Known keys: '
            f'{", ".join(known)}.'
        )
