"""Say how far something is, and how long it will still take.

Functions of the package say nothing by themselves. Tools and hooks wrap what the functions go
through, as in ``calibrate(model, track(batches, 'calibrate', 'batches'))``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

__all__ = ['Progress', 'Stages', 'duration', 'track']

Item = TypeVar('Item')

_REDRAW = 0.2
"""Seconds between two changes of the line on a terminal."""

_PAUSE = 5.0
"""Seconds between two lines in a log. The pause grows to a tenth of the time that has passed."""


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it.

    Example:
        >>> duration(89), duration(200), duration(9000)
        ('89 s', '3 min', '2.5 h')
    """
    if seconds < 90:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.0f} min' if seconds < 5400 else f'{seconds / 3600:.1f} h'


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Progress:
    """Count steps that take about the same time, and say how many are left.

    The first line says how many steps there are. On a terminal, a second one is then written again
    and again. In a log, or where stderr goes to a file, there is another line from time to time,
    and none for what is over in five seconds.

    Args:
        what: What is done. Each line begins with it.
        total: Number of steps. Defaults to None: it is not known.
        unit: What a step is, in the plural. Defaults to ''.
        say: Receives each line, as the method ``info`` of a logger does. Defaults to None: stderr.
    """

    def __init__(
        self,
        what: str,
        total: int | None = None,
        unit: str = '',
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = 0
        self._on_terminal = say is None and _is_terminal()
        self._say = say or _to_stderr
        self._began = self._said = time.monotonic()
        self._say(f'{what}: {self._number(total)}')  # a line of its own, as others may write now

    def step(self) -> None:
        """Count a step, and say so if it is time to."""
        self.done += 1
        now = time.monotonic()
        pause = _REDRAW if self._on_terminal else max(_PAUSE, (now - self._began) / 10)
        if now - self._said >= pause and self.done != self.total:
            self._said = now
            self._write(self._line())

    def end(self) -> None:
        """Say how long it took, unless that goes without saying."""
        took = time.monotonic() - self._began
        if self._on_terminal or took >= _PAUSE:
            self._write(f'{self._state()} in {duration(took)}')
        if self._on_terminal:
            sys.stderr.write('\n')

    def _number(self, number: int | None) -> str:
        return f'{"" if number is None else number} {self.unit}'.strip()

    def _state(self) -> str:
        of_all = '' if self.total is None else f'/{self.total}'
        return f'{self.what}: {self.done}{of_all} {self.unit}'.rstrip()

    def _line(self) -> str:
        passed = time.monotonic() - self._began
        if self.total is None or self.done > self.total:  # an item may have more parts than said
            return f'{self._state()}, {duration(passed)} so far'
        left = passed / self.done * (self.total - self.done)
        return f'{self._state()}, about {duration(left)} left'

    def _write(self, line: str) -> None:
        if self._on_terminal:
            sys.stderr.write(f'\r\x1b[K{line}')  # from the start of the line, and clear the rest
            sys.stderr.flush()
        else:
            self._say(line)


def track(
    items: Iterable[Item],
    what: str,
    unit: str = '',
    *,
    total: int | None = None,
    say: Callable[[str], None] | None = None,
    verbose: bool = True,
) -> Iterator[Item]:
    """Yield items, and say how many of them have been dealt with.

    Args:
        items: The items.
        what: What is done with them.
        unit: What they are, in the plural. Defaults to ''.
        total: Their number. Defaults to None: their length, if they have one.
        say: As for :class:`Progress`. Defaults to None.
        verbose: Whether to say anything. Defaults to True.
    """
    if not verbose:
        yield from items
        return
    if total is None:
        total = _length(items)
    progress = Progress(what, total, unit, say)
    try:
        for item in items:
            yield item
            progress.step()
    finally:
        progress.end()


def _is_terminal() -> bool:
    """Tell whether stderr is a terminal. It may be None, or lack the method."""
    return bool(getattr(sys.stderr, 'isatty', lambda: False)())


def _length(items: Iterable) -> int | None:
    """Return the number of items, or None: a data loader over a stream has no length to give."""
    try:
        return len(items) if isinstance(items, Sized) else None
    except TypeError:
        return None


class Stages:
    """Say which part of something begins, where the parts take different times.

    Args:
        what: What is done. Each line begins with it.
        total: Number of parts.
        verbose: Whether to say it.
    """

    def __init__(self, what: str, total: int, verbose: bool) -> None:
        self.what, self.total, self.verbose = what, total, verbose
        self.number = 0
        self._began = time.monotonic()

    def begin(self, part: str) -> None:
        """Say that the next part begins, and how long those before it took."""
        self.number += 1
        if self.verbose:
            passed = duration(time.monotonic() - self._began)
            _to_stderr(f'{self.what}: {self.number}/{self.total} {part} ({passed} so far)')
