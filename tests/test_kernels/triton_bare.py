"""Run kernel cases where pytest is not installed, as on a borrowed GPU.

A stand-in for pytest serves what the cases use of it: parametrized functions, and fixtures. What
it does not know ends the program with an error, so that no case is left out unnoticed.

    MMWCC_KERNELS=triton python tests/test_kernels/triton_bare.py triton_cases/haar_cases.py
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

TESTS = Path(__file__).resolve().parents[1]
CASES = 'test_kernels.triton_cases'


class MonkeyPatch:
    """What cases use of pytest's: attributes that are set for a while."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def setattr(self, target: Any, name: str, value: Any) -> None:
        self._stack.enter_context(mock.patch.object(target, name, value))

    @contextmanager
    def context(self) -> Iterator[MonkeyPatch]:
        with ExitStack() as stack:
            yield MonkeyPatch(stack)


def fixture(function=None, *, autouse: bool = False, scope: str = 'function'):
    """Mark a function as a fixture."""
    if function is None:
        return partial(fixture, autouse=autouse, scope=scope)
    function.fixture_options = SimpleNamespace(autouse=autouse, scope=scope)
    return function


def parametrize(names, values):
    """Add an axis of arguments to a case."""
    names = tuple(name.strip() for name in names.split(',')) if isinstance(names, str) else names
    rows = [(value,) if len(names) == 1 else value for value in values]
    axis = [dict(zip(names, row, strict=True)) for row in rows]

    def mark(function):
        function.axes = [*getattr(function, 'axes', ()), axis]
        return function

    return mark


def stand_in() -> ModuleType:
    """Return a module that takes the place of pytest."""
    module: Any = ModuleType('pytest')
    module.fixture, module.mark = fixture, SimpleNamespace(parametrize=parametrize)
    module.hookimpl = lambda **options: lambda function: function
    return module


class Fixtures:
    """The fixtures of a file of cases and of the conftests above it; the nearest counts.

    Args:
        modules: The conftests, the outermost first, then the file.
        session: Holds the fixtures of the whole session.
    """

    def __init__(self, modules: list[ModuleType], session: ExitStack) -> None:
        marked = [
            (name, function)
            for module in modules
            for name, function in vars(module).items()
            if hasattr(function, 'fixture_options')
        ]
        self._functions = dict(marked)
        self._automatic = dict.fromkeys(
            name for name, function in marked if function.fixture_options.autouse
        )
        self._session = session
        self._kept: dict[str, Any] = {}

    def value(self, name: str, stack: ExitStack) -> Any:
        """Return a fixture by its name. The stack undoes it."""
        if name == 'monkeypatch':
            return MonkeyPatch(stack)
        if name == 'tmp_path':
            return Path(stack.enter_context(tempfile.TemporaryDirectory()))
        function = self._functions[name]
        if function.fixture_options.scope == 'session':
            if name not in self._kept:
                self._kept[name] = self._entered(function, self._session)
            return self._kept[name]
        return self._entered(function, stack)

    def _entered(self, function: Callable, stack: ExitStack) -> Any:
        given = {name: self.value(name, stack) for name in inspect.signature(function).parameters}
        if inspect.isgeneratorfunction(function):
            return stack.enter_context(contextmanager(function)(**given))
        return function(**given)

    def run(self, case: Callable, arguments: dict[str, Any]) -> None:
        """Run a case with its arguments, the fixtures it names and the automatic ones."""
        with ExitStack() as stack:
            for name in self._automatic:
                self.value(name, stack)
            names = inspect.signature(case).parameters.keys() - arguments.keys()
            case(**arguments, **{name: self.value(name, stack) for name in names})


def run_file(name: str) -> tuple[int, int]:
    """Run all cases of a file; print what fails. Return how many passed and how many failed."""
    outer = ('conftest', 'test_kernels.conftest', f'{CASES}.conftest', f'{CASES}.{name}')
    modules, counts = [importlib.import_module(module) for module in outer], [0, 0]
    with ExitStack() as session:
        fixtures = Fixtures(modules, session)
        for title, case in vars(modules[-1]).items():
            if not title.startswith('test_') or not inspect.isfunction(case):
                continue
            for row in itertools.product(*getattr(case, 'axes', ())):
                arguments = {key: value for part in row for key, value in part.items()}
                try:
                    fixtures.run(case, arguments)
                except Exception:
                    print(f'FAILED {name}::{title} {arguments}\n{traceback.format_exc()}')
                    counts[1] += 1
                else:
                    counts[0] += 1
    return counts[0], counts[1]


def main() -> None:
    sys.modules['pytest'] = stand_in()
    sys.path.insert(0, str(TESTS))
    found = [run_file(Path(name).stem) for name in sys.argv[1:]]
    passed, failed = (sum(counts) for counts in zip(*found, strict=True))
    print(f'{failed} failed, {passed} passed, without pytest', flush=True)
    sys.exit(failed > 0 or not passed)


if __name__ == '__main__':
    main()
