"""Building schedules from configs. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .schedule import Schedule, StepSchedule
from .smooth_schedule import CosineSchedule, ExponentialSchedule, LinearSchedule

__all__ = ['build_schedule']

_KEYS = ('begin', 'end', 'start', 'stop')
_TYPES = {
    'step': (StepSchedule, ('steps',), ()),
    'linear': (LinearSchedule, _KEYS, ('interval',)),
    'cosine': (CosineSchedule, _KEYS, ('interval',)),
    'exponential': (ExponentialSchedule, _KEYS, ('interval',)),
}
_NAMES = {entry[0].__name__: name for name, entry in _TYPES.items()}


def build_schedule(quantity: str, cfg: Mapping[str, Any]) -> Schedule:
    """Build the schedule of one quantity from its config.

    Args:
        quantity: One of 'keep_ratio', 'weight_bits' and 'act_bits'.
        cfg: ``type``, which is 'step', 'linear', 'cosine', 'exponential' or the class itself, and
            the arguments of :class:`StepSchedule` or :class:`SmoothSchedule`.

    Returns:
        The schedule.

    Raises:
        TypeError: If ``cfg`` is not a mapping.
        ValueError: If ``type`` is missing or unknown, a key is unknown or missing, or the class
            rejects a value.

    Example:
        >>> build_schedule('act_bits', dict(type='step', steps=[(0, 32), (500, 8)])).value_at(500)
        8
    """
    if not isinstance(cfg, Mapping):
        raise TypeError(
            f'build_schedule: the schedule of {quantity} must be a dict, got {cfg!r}. Did you mean '
            "dict(type='step', steps=[(0, ...), ...])?"
        )
    kind = cfg.get('type')
    name = str(getattr(kind, '__name__', kind)).rpartition('.')[2]  # a class, or its import path
    name = _NAMES.get(name, name)
    if name not in _TYPES:
        raise ValueError(
            f'build_schedule: type of the schedule of {quantity} must be one of '
            f'{", ".join(_TYPES)}, got '
            f"{kind!r}. Did you mean type='step'?"
        )
    cls, required, optional = _TYPES[name]
    kwargs = {key: value for key, value in cfg.items() if key != 'type'}
    for wrong, why in (
        (sorted(set(kwargs) - {*required, *optional}), 'has no key'),
        (sorted(set(required) - set(kwargs)), 'needs the key'),
    ):
        if wrong:
            raise ValueError(
                f'{cls.__name__} of {quantity}: a schedule of type {name!r} {why} '
                f'{", ".join(wrong)}. Its keys are {", ".join(("type", *required, *optional))}.'
            )
    return cls(quantity, **kwargs)
