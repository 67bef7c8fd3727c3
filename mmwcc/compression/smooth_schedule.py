"""Schedules that move a quantity gradually. Nothing here imports torch."""

from __future__ import annotations

import math
from abc import abstractmethod

from .schedule import MAX_BITS, OFF_BITS, Schedule

__all__ = ['CosineSchedule', 'ExponentialSchedule', 'LinearSchedule', 'SmoothSchedule']


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
                f'{self._name}: stop must be below start, got start={start} and stop={stop}. A '
                'schedule only lowers; drop it to hold a value.'
            )
        if not isinstance(interval, int) or isinstance(interval, bool) or interval < 1:
            raise ValueError(
                f'{self._name}: interval must be an integer of at least 1, got {interval!r}. Use 1 '
                'to change the value at every moment.'
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
        return bits if bits <= MAX_BITS else OFF_BITS


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
