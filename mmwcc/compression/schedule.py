"""Compression over time: bits and keep_ratio as pure functions of the iteration or epoch.

A schedule says how far compression *may* have gone at a given time. A layer gets the larger of the
scheduled value and the value it was built with (``LayerState.under``). Exceptions from per-layer
rules therefore survive, and training ends in the state that the config describes. Nothing here
imports torch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

__all__ = [
    'QUANTITIES',
    'Schedule',
    'StepSchedule',
    'SmoothSchedule',
    'LinearSchedule',
    'CosineSchedule',
    'ExponentialSchedule',
    'build_schedule',
]

QUANTITIES = ('keep_ratio', 'weight_bits', 'act_bits')
_BITS_OFF = 32
_MAX_BITS = 16


class Schedule(ABC):
    """Map an iteration or epoch to a value of one quantity; the base class of all schedules.

    Args:
        quantity: One of 'keep_ratio', 'weight_bits' and 'act_bits'.

    Raises:
        ValueError: If ``quantity`` is none of these.
    """

    def __init__(self, quantity: str) -> None:
        if quantity not in QUANTITIES:
            raise ValueError(
                f'{type(self).__name__}: quantity must be one of {", ".join(QUANTITIES)}, '
                f'got {quantity!r}.'
            )
        self.quantity = quantity

    @property
    @abstractmethod
    def end(self) -> int:
        """The iteration or epoch from which the value no longer changes."""

    @property
    @abstractmethod
    def ramp(self) -> float:
        """How far the value moves gradually; 0 if it only changes in single jumps."""

    @abstractmethod
    def value_at(self, t: int) -> float:
        """Return the value during iteration or epoch ``t``, counted from 0."""

    @property
    def final(self) -> float:
        """The value at the end."""
        return self.value_at(self.end)

    @property
    def _name(self) -> str:
        return f'{type(self).__name__} of {self.quantity}'

    def _check_value(self, argument: str, value: Any) -> None:
        """Raise an error if the quantity cannot have this value."""
        if self.quantity == 'keep_ratio':
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= 1:
                raise ValueError(
                    f'{self._name}: {argument} must be in (0, 1], got {value!r}. Use 1.0 to keep every '
                    'coefficient.'
                )
        elif (
            not isinstance(value, int)
            or isinstance(value, bool)
            or not (2 <= value <= _MAX_BITS or value == _BITS_OFF)
        ):
            raise ValueError(
                f'{self._name}: {argument} must be an integer from 2 to {_MAX_BITS} or {_BITS_OFF}, got '
                f'{value!r}. Use {_BITS_OFF} to switch quantization off.'
            )

    def _check_time(self, argument: str, t: Any) -> None:
        """Raise an error if ``t`` is not an integer of at least 0."""
        if not isinstance(t, int) or isinstance(t, bool) or t < 0:
            raise ValueError(
                f'{self._name}: {argument} must be an integer of at least 0, got {t!r}. Iterations and '
                'epochs are counted from 0.'
            )


class StepSchedule(Schedule):
    """Hold a value until the next step.

    Args:
        quantity: One of 'keep_ratio', 'weight_bits' and 'act_bits'.
        steps: Pairs of a moment (an iteration or epoch) and the value that holds from then on. The
            first moment must be 0, moments must increase and values must not increase.

    Raises:
        ValueError: If ``steps`` is empty or does not consist of pairs, a moment or value is
            impossible, the first moment is not 0, moments do not increase, or a value increases.

    Example:
        >>> schedule = StepSchedule('keep_ratio', [(0, 1.0), (2000, 0.5), (4000, 0.25)])
        >>> [schedule.value_at(t) for t in (0, 1999, 2000, 9999)]
        [1.0, 1.0, 0.5, 0.25]
    """

    def __init__(self, quantity: str, steps: Sequence[tuple[int, float]]) -> None:
        super().__init__(quantity)
        pairs = (
            isinstance(steps, Sequence)
            and not isinstance(steps, str)
            and all(
                isinstance(step, Sequence) and not isinstance(step, str) and len(step) == 2
                for step in steps
            )
        )
        if not pairs or not steps:
            raise ValueError(
                f'{self._name}: steps must be a list of (moment, value) pairs with at least one pair, got '
                f'{steps!r}. Did you mean steps=[(0, {self._open()})]?'
            )
        for moment, value in steps:
            self._check_time('the moment of a step', moment)
            self._check_value('the value of a step', value)
        if steps[0][0] != 0:
            raise ValueError(
                f'{self._name}: the first step must be at 0, got {steps[0][0]}. Put (0, {self._open()}) '
                'before it to start uncompressed.'
            )
        for (t, value), (next_t, next_value) in pairwise(steps):
            if next_t <= t:
                raise ValueError(
                    f'{self._name}: the moments of steps must increase, got {next_t} after {t}. Sort '
                    'the steps and give each moment once.'
                )
            if next_value > value:
                raise ValueError(
                    f'{self._name}: values must not increase, got {next_value} after {value}. A schedule '
                    'only lowers; leave a layer less compressed by a rule in the compression config.'
                )
        self._moments = [moment for moment, _ in steps]
        self._values = [float(value) if quantity == 'keep_ratio' else value for _, value in steps]

    def _open(self) -> float:
        return 1.0 if self.quantity == 'keep_ratio' else _BITS_OFF

    @property
    def end(self) -> int:
        return self._moments[-1]

    @property
    def ramp(self) -> float:
        return 0.0

    def value_at(self, t: int) -> float:
        return self._values[max(bisect_right(self._moments, t) - 1, 0)]


class SmoothSchedule(Schedule):
    """Move from ``start`` to ``stop`` between ``begin`` and ``end``; hold them before and after.

    Bits are rounded to integers. What rounds to 17 .. 31 becomes 32, which means off, because no
    quantizer has these widths. A schedule of bits that starts at 32 therefore jumps to 16. Start at
    16 to use the whole ramp.

    Args:
        quantity: One of 'keep_ratio', 'weight_bits' and 'act_bits'.
        begin: The iteration or epoch at which the value starts to fall.
        end: The iteration or epoch from which the value is ``stop``.
        start: The value until ``begin``.
        stop: The value from ``end`` on; lower than ``start``.
        interval: Change the value only once in so many iterations or epochs. A larger interval
            makes compiled models recompile less often. Defaults to 1.

    Raises:
        ValueError: If a moment or value is impossible, ``begin`` is not before ``end``, ``stop`` is
            not below ``start``, or ``interval`` is not a positive integer.
    """

    def __init__(
        self, quantity: str, begin: int, end: int, start: float, stop: float, interval: int = 1
    ) -> None:
        super().__init__(quantity)
        self._check_time('begin', begin)
        self._check_time('end', end)
        self._check_value('start', start)
        self._check_value('stop', stop)
        if begin >= end:
            raise ValueError(
                f'{self._name}: begin must be before end, got begin={begin} and end={end}. Use '
                "type='step' to change a value at once."
            )
        if start <= stop:
            raise ValueError(
                f'{self._name}: stop must be below start, got start={start} and stop={stop}. A schedule '
                'only lowers; drop it to hold a value.'
            )
        if not isinstance(interval, int) or isinstance(interval, bool) or interval < 1:
            raise ValueError(
                f'{self._name}: interval must be an integer of at least 1, got {interval!r}. Use 1 to '
                'change the value at every moment.'
            )
        self._begin, self._end, self._interval = begin, end, interval
        self._start, self._stop = start, stop

    @abstractmethod
    def _interpolate(self, progress: float) -> float:
        """Return the value before rounding at a progress in (0, 1)."""

    @property
    def end(self) -> int:
        return self._end

    @property
    def ramp(self) -> float:
        return float(self._start - self._stop) if self.quantity == 'keep_ratio' else 0.0

    def value_at(self, t: int) -> float:
        if t >= self._end:
            value = self._stop
        else:
            elapsed = max(t - self._begin, 0) // self._interval * self._interval
            exact = (
                self._interpolate(elapsed / (self._end - self._begin)) if elapsed else self._start
            )
            value = min(max(exact, self._stop), self._start)
        if self.quantity == 'keep_ratio':
            return float(value)
        bits = math.floor(value + 0.5)
        return bits if bits <= _MAX_BITS else _BITS_OFF


class LinearSchedule(SmoothSchedule):
    """Move linearly from ``start`` to ``stop``. Takes the arguments of :class:`SmoothSchedule`.

    Example:
        >>> schedule = LinearSchedule('keep_ratio', begin=0, end=2000, start=1.0, stop=0.5)
        >>> [schedule.value_at(t) for t in (0, 1000, 2000, 9999)]
        [1.0, 0.75, 0.5, 0.5]
        >>> bits = LinearSchedule('act_bits', begin=0, end=4, start=32, stop=8)
        >>> [bits.value_at(t) for t in range(5)]
        [32, 32, 32, 14, 8]
    """

    def _interpolate(self, progress: float) -> float:
        return self._start + (self._stop - self._start) * progress


class CosineSchedule(SmoothSchedule):
    """Move along half a cosine wave, slowly at both ends.

    Takes the arguments of :class:`SmoothSchedule`.

    Example:
        >>> schedule = CosineSchedule('keep_ratio', begin=0, end=2000, start=1.0, stop=0.5)
        >>> [round(schedule.value_at(t), 4) for t in (0, 500, 1000, 2000)]
        [1.0, 0.9268, 0.75, 0.5]
    """

    def _interpolate(self, progress: float) -> float:
        return self._stop + (self._start - self._stop) * (1 + math.cos(math.pi * progress)) / 2


class ExponentialSchedule(SmoothSchedule):
    """Change by equal factors in equal times. Takes the arguments of :class:`SmoothSchedule`.

    Example:
        >>> schedule = ExponentialSchedule('keep_ratio', begin=0, end=2000, start=1.0, stop=0.25)
        >>> [schedule.value_at(t) for t in (0, 1000, 2000)]
        [1.0, 0.5, 0.25]
    """

    def _interpolate(self, progress: float) -> float:
        return self._start * (self._stop / self._start) ** progress


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
            f'build_schedule: type of the schedule of {quantity} must be one of {", ".join(_TYPES)}, got '
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
                f'{cls.__name__} of {quantity}: a schedule of type {name!r} {why} {", ".join(wrong)}. '
                f'Its keys are {", ".join(("type", *required, *optional))}.'
            )
    return cls(quantity, **kwargs)
