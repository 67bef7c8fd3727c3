"""Error messages and warnings of the command-line tools."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from .launch import LaunchError

__all__ = ['one_line_errors', 'quiet']


@contextmanager
def one_line_errors(tool: str, *kinds: type[Exception]) -> Iterator[None]:
    """End the program with a one-line message and exit code 1 if a request cannot be carried out.

    Args:
        tool: Name of the program. The line begins with it.
        *kinds: Errors to report this way besides :class:`LaunchError`. All others keep their
            traceback.

    Raises:
        SystemExit: In place of such an error.
    """
    expected: tuple[type[Exception], ...] = (LaunchError, *kinds)
    try:
        yield
    except expected as error:
        sys.exit(f'{tool}: {error}')


@contextmanager
def quiet() -> Iterator[None]:
    """Hide warnings. While a model is built, OpenMMLab warns about its own deprecated keys."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield
