"""Compression over time: bits and keep_ratio as pure functions of the iteration or epoch.

A schedule says how far compression *may* have gone at a given time. A layer gets the larger of the
scheduled value and the value it was built with (``LayerState.under``). Exceptions from per-layer
rules therefore survive, and training ends in the state that the config describes. Nothing here
imports torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

__all__ = ['MAX_BITS', 'OFF_BITS', 'QUANTITIES', 'Schedule', 'StepSchedule']

QUANTITIES = ('keep_ratio', 'weight_bits', 'act_bits')
OFF_BITS = 32
MAX_BITS = 16


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
    def values(self) -> list[float]:
        """All values that it takes, ascending."""
        return sorted({self.value_at(t) for t in range(self.end + 1)})

    @property
    def _name(self) -> str:
        return f'{type(self).__name__} of {self.quantity}'

    def _check_value(self, argument: str, value: Any) -> None:
        """Raise an error if the quantity cannot have this value."""
        if self.quantity == 'keep_ratio':
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= 1:
                raise ValueError(
                    f'{self._name}: {argument} must be in (0, 1], got {value!r}. It is a fraction: '
                    'use 0.5 for 50 %, and 1.0 to keep every coefficient.'
                )
        elif self.quantity == 'act_bits':
            # Means of several widths need not be whole. The hook asks the layers before training.
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not (0 < value <= MAX_BITS or value == OFF_BITS):
                raise ValueError(
                    f'{self._name}: {argument} must be above 0 and at most {MAX_BITS}, or '
                    f'{OFF_BITS}, got {value!r}. Use {OFF_BITS} to switch quantization off.'
                )
        elif (
            not isinstance(value, int)
            or isinstance(value, bool)
            or not (2 <= value <= MAX_BITS or value == OFF_BITS)
        ):
            raise ValueError(
                f'{self._name}: {argument} must be an integer from 2 to {MAX_BITS} or {OFF_BITS}, '
                f'got {value!r}. Use {OFF_BITS} to switch quantization off.'
            )

    def _check_time(self, argument: str, t: Any) -> None:
        """Raise an error if ``t`` is not an integer of at least 0."""
        if not isinstance(t, int) or isinstance(t, bool) or t < 0:
            raise ValueError(
                f'{self._name}: {argument} must be an integer of at least 0, got {t!r}. Iterations '
                'and epochs are counted from 0.'
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
                f'{self._name}: steps must be a list of (moment, value) pairs with at least one '
                f'pair, got {steps!r}. Did you mean steps=[(0, {self._open()})]?'
            )
        for moment, value in steps:
            self._check_time('the moment of a step', moment)
            self._check_value('the value of a step', value)
        if steps[0][0] != 0:
            raise ValueError(
                f'{self._name}: the first step must be at 0, got {steps[0][0]}. Put (0, '
                f'{self._open()}) before it to start uncompressed.'
            )
        for (t, value), (next_t, next_value) in pairwise(steps):
            if next_t <= t:
                raise ValueError(
                    f'{self._name}: the moments of steps must increase, got {next_t} after {t}. '
                    'Sort the steps and give each moment once.'
                )
            if next_value > value:
                raise ValueError(
                    f'{self._name}: values must not increase, got {next_value} after {value}. A '
                    'schedule only lowers; leave a layer less compressed by a rule in the '
                    'compression config.'
                )
        self._moments = [moment for moment, _ in steps]
        self._values = [float(value) if quantity == 'keep_ratio' else value for _, value in steps]

    def _open(self) -> float:
        return 1.0 if self.quantity == 'keep_ratio' else OFF_BITS

    @property
    def end(self) -> int:
        return self._moments[-1]

    @property
    def ramp(self) -> float:
        return 0.0

    def value_at(self, t: int) -> float:
        return self._values[max(bisect_right(self._moments, t) - 1, 0)]
