"""How tools speak: one line for what cannot be done, and nothing of what the user cannot change."""
from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from .launch import LaunchError

__all__ = ['one_line_errors', 'quiet']


@contextmanager
def one_line_errors(tool: str, *kinds: type[Exception]) -> Iterator[None]:
    """End the program with one line, and exit code 1, when what was asked for cannot be done.

    Args:
        tool: Name of the program, with which the line begins.
        *kinds: What counts besides :class:`LaunchError`. Anything else keeps its traceback.

    Raises:
        SystemExit: Instead of such an error.
    """
    expected: tuple[type[Exception], ...] = (LaunchError, *kinds)
    try:
        yield
    except expected as error:
        sys.exit(f'{tool}: {error}')


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out warnings: while models are built they are what OpenMMLab says of its own deprecated keys."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield
