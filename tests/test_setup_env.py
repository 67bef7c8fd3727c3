"""tools/misc/setup_env.sh: which mmcv it installs, and how it recovers.

The environments are imitated by a script in the place of the interpreter. It keeps a file for each
distribution that pip would install, and a list of its calls.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STAND_IN = ROOT / 'stand_ins' / 'mmcv_ops.py'
INTERPRETER = """#!/usr/bin/env bash
home=$(dirname "$(dirname "$0")")
echo "$*" >> "$home/calls"
case "$*" in
    *'-m venv'*) ;;
    *'-m pip'*' uninstall '*) rm -f "$home/installed/mmcv" "$home/installed/mmcv-lite" ;;
    *'--no-input wheel '*)
        [ ! -e "$home/no_compiler" ] && mkdir -p "$home/mmcv_wheel" && touch "$home/mmcv_wheel/mmcv.whl" ;;
    *'-m pip'*mmcv-lite==*) mkdir -p "$home/site/mmcv" && touch "$home/installed/mmcv-lite" ;;
    *'-m pip'*mmcv.whl) mkdir -p "$home/site/mmcv/ops" && touch "$home/installed/mmcv" "$home/site/mmcv/ops/nms.py" ;;
    *importlib.metadata*) [ -e "$home/installed/${@: -1}" ] ;;
    *'import mmcv._ext'*) [ -e "$home/installed/mmcv" ] && [ ! -e "$home/other_torch" ] ;;
    *sysconfig*) echo "$home/site/mmcv" ;;
esac
"""  # noqa: E501


class Environment:
    """A folder that looks like a virtual environment, and the set-up of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / 'bin').mkdir(parents=True)
        (folder / 'installed').mkdir()
        (folder / 'bin' / 'python').write_text(INTERPRETER)
        (folder / 'bin' / 'python').chmod(0o755)

    def set_up(self, extras: str = '') -> subprocess.CompletedProcess:
        return subprocess.run(
            [str(ROOT / 'tools/misc/setup_env.sh'), str(self.folder)],
            env={**os.environ, 'EXTRAS': extras, 'MORE_EXTRAS': '', 'PYTHON': 'python3'},
            capture_output=True,
            text=True,
        )

    def calls(self) -> list[str]:
        """Return what the interpreter was called with since the last time."""
        log = self.folder / 'calls'
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    @property
    def installed(self) -> list[str]:
        return sorted(path.name for path in (self.folder / 'installed').iterdir())

    @property
    def has_stand_in(self) -> bool:
        copy = self.folder / 'site/mmcv/ops/__init__.py'
        return copy.is_file() and copy.read_text() == STAND_IN.read_text()


@pytest.fixture
def environment(tmp_path):
    if not (ROOT / 'mmwcc/.mim/model-index.yml').exists() or shutil.which('bash') is None:
        pytest.skip('needs bash, and the package installed from its source')
    return Environment(tmp_path / 'env')


def test_the_demo_takes_mmcv_lite_and_compiles_nothing(environment):
    result = environment.set_up('demo')
    assert result.returncode == 0, result.stderr
    assert environment.installed == ['mmcv-lite'] and environment.has_stand_in
    calls = environment.calls()
    assert not any('--no-input wheel' in call for call in calls)
    assert any(call.endswith('[demo]') for call in calls)
    assert environment.set_up('demo').returncode == 0
    assert environment.calls() == [], 'a second set-up has nothing to do'


def test_setup_puts_the_full_mmcv_in_the_place_of_both(environment):
    environment.set_up('demo')
    environment.calls()
    result = environment.set_up()
    assert result.returncode == 0, result.stderr
    assert environment.installed == ['mmcv'] and not environment.has_stand_in
    calls = environment.calls()
    order = [
        next(place for place, call in enumerate(calls) if text in call)
        for text in ('--no-input wheel', 'uninstall', 'mmcv.whl')
    ]
    assert order == sorted(order), 'the wheel is made before mmcv-lite goes'


def test_the_demo_leaves_a_full_mmcv_alone(environment):
    environment.set_up()
    environment.calls()
    assert environment.set_up('demo').returncode == 0
    environment.folder.joinpath('.mmwcc_setup').unlink(
        missing_ok=True
    )  # as after a change of setup.py
    assert environment.set_up('demo').returncode == 0
    assert environment.installed == ['mmcv'] and not environment.has_stand_in
    assert not any('uninstall' in call or 'mmcv-lite==' in call for call in environment.calls())


def test_a_failed_compilation_leaves_the_demo_as_it_was(environment):
    environment.set_up('demo')
    (environment.folder / 'no_compiler').touch()
    result = environment.set_up()
    assert result.returncode == 1 and 'mmcv could not be installed' in result.stderr
    assert environment.installed == ['mmcv-lite'] and environment.has_stand_in
    (environment.folder / 'no_compiler').unlink()
    assert environment.set_up().returncode == 0
    assert environment.installed == ['mmcv'] and not environment.has_stand_in


@pytest.mark.parametrize('extras', ['demo', ''])
def test_what_an_interrupted_installation_left_goes(environment, extras):
    left = environment.folder / 'site/mmcv/ops/roi_pool.py'
    left.parent.mkdir(parents=True)
    left.touch()
    assert environment.set_up(extras).returncode == 0
    assert environment.installed == ['mmcv-lite' if extras else 'mmcv']
    assert environment.has_stand_in == bool(extras) and not left.exists()


def test_a_wheel_that_was_compiled_for_another_torch_is_compiled_again(environment):
    (environment.folder / 'other_torch').touch()
    environment.set_up()
    wheels = [call for call in environment.calls() if '--no-input wheel' in call]
    assert ['--no-cache-dir' in call for call in wheels] == [False, True]


def test_extras_add_up(environment):
    environment.set_up('demo')
    environment.set_up('demo,dev')
    environment.calls()
    for extras in ('demo', 'dev', 'dev,demo'):
        assert environment.set_up(extras).returncode == 0
    assert environment.calls() == []


@pytest.mark.parametrize(
    ('target', 'extras', 'more'),
    [
        ('setup', '', ''),
        ('test', '', ''),
        ('docs', '', 'docs'),
        ('demo', 'demo', ''),
        ('bench', 'demo', ''),
        ('lint', 'demo', 'dev'),
        ('format', 'demo', 'dev'),
        ('fuzz', 'demo', 'tests'),
        ('matrix', 'matrix', ''),
    ],
)
def test_targets_ask_for_what_they_need(target, extras, more):
    """Tests run operators of mmcv, and the API pages show what is derived from mmdetection."""
    make = shutil.which('make') or pytest.skip('needs make')
    # `make test` hands its own flags and variables on to what it runs.
    inherited = {'EXTRAS', 'MAKEFLAGS', 'MAKELEVEL', 'MFLAGS'}
    environment = {key: value for key, value in os.environ.items() if key not in inherited}
    for arguments, expected in (([], extras), (['EXTRAS=cpu'], 'cpu')):
        plan = subprocess.run(
            [make, '-n', target, *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert plan.stdout.startswith(f"EXTRAS='{expected}' MORE_EXTRAS='{more}' ./tools/misc/")
