"""Run the tests of the layers on the oldest and the newest torch, with every Python that is there.

`make matrix` runs this file; CONTRIBUTING.md describes it. By hand, after `pip install nox`:

    nox                     every session
    nox --list              what there is
    nox -p 3.12 -- -x       one Python; what follows `--` goes to pytest

MATRIX_TORCH in the environment takes other versions of torch, as in MATRIX_TORCH='2.8.0 2.14.1'.
TORCH_ARGS is passed to pip with torch.
"""

import os
import re
from pathlib import Path

import nox

nox.options.error_on_missing_interpreters = False

# Where tests of these rooms need more than mmwcc requires, they are skipped.
TESTS = [f'tests/test_{room}' for room in ('functional', 'kernels', 'layers', 'quantizers')]


def found(pattern: str, file: str) -> list[str]:
    """Return what a pattern finds in a file of the project, at least one string."""
    strings = re.findall(pattern, (Path(__file__).parent / file).read_text(encoding='utf-8'))
    assert strings, f'{file} has nothing like {pattern}'
    return strings


PYTHONS = found(r"'Programming Language :: Python :: (3\.\d+)'", 'setup.py')
OLDEST = found(r"'torch>=([\d.]+)'", 'setup.py')[0]
NEWEST = found(r'TORCH:-torch==([\d.]+)', 'tools/misc/setup_env.sh')[0]
VERSIONS = (os.environ.get('MATRIX_TORCH') or f'{OLDEST} {NEWEST}').split()


@nox.session(python=PYTHONS)
@nox.parametrize('torch', VERSIONS)
def layers(session: nox.Session, torch: str) -> None:
    """Run the tests of the layers with what `pip install mmwcc` brings, and nothing else."""
    if session.python == '3.13' and torch.startswith('2.4.'):
        session.skip('torch 2.4 has no builds for Python 3.13')
    session.install(f'torch=={torch}', *os.environ.get('TORCH_ARGS', '').split())
    session.install('-e', '.', 'pytest>=7', 'pytest-xdist>=3.6', 'hypothesis')
    session.run(
        *('pytest', '-q', '-m', 'not slow', *TESTS, *session.posargs),
        env={'OMP_NUM_THREADS': '1'},
    )
