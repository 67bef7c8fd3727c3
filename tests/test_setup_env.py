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
    *'-m pip'*' uninstall '*) for name in "${@: -2}"; do rm -f "$home/installed/$name"; done ;;
    *'--no-input wheel '*)
        name=${@: -1}
        [ ! -e "$home/no_compiler" ] && mkdir -p "$home/mmcv_wheel" && touch "$home/mmcv_wheel/${name%==*}.whl" ;;
    *'-m pip'*mmcv-lite==*) mkdir -p "$home/site/mmcv" && touch "$home/installed/mmcv-lite" ;;
    *'-m pip'*mmcv.whl)
        name=$(basename "${@: -1}" .whl)
        mkdir -p "$home/site/mmcv/ops" && touch "$home/installed/$name" "$home/site/mmcv/ops/nms.py" ;;
    *importlib.metadata*) [ -e "$home/installed/${@: -1}" ] ;;
    *'import mmcv._ext'*) ls "$home"/installed/*mmcv > /dev/null && [ ! -e "$home/other_torch" ] ;;
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

    def set_up(self, extras: str = '', stack: str = '') -> subprocess.CompletedProcess:
        return subprocess.run(
            [str(ROOT / 'tools/misc/setup_env.sh'), str(self.folder)],
            env={
                **os.environ,
                'EXTRAS': extras,
                'MORE_EXTRAS': '',
                'PYTHON': 'python3',
                'STACK': stack,
                'TORCH': '',
            },
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
    ('stack', 'mmcv', 'libraries', 'torch'),
    [
        ('upstream', 'mmcv', 'openmmlab', 'torch==2.13.0'),
        ('onedl', 'onedl-mmcv', 'onedl', 'torch==2.13.0'),
        ('mmpretrain', 'mmcv', 'mmpretrain', 'torch==2.14.1 torchvision==0.29.1'),
    ],
)
def test_a_stack_is_installed_with_its_libraries_alone(environment, stack, mmcv, libraries, torch):
    result = environment.set_up(stack=stack)
    assert result.returncode == 0, result.stderr
    assert environment.installed == [mmcv]
    calls = environment.calls()
    assert any(f'install {torch} ' in call for call in calls)
    assert any(call.endswith(f'[{libraries},cpu,triton,mim,dev]') for call in calls)
    constraints = (environment.folder / 'constraints.txt').read_text().split()
    assert any(line.startswith(f'{mmcv}==') for line in constraints)
    forks = [line.startswith('onedl-') for line in constraints if line.startswith(('mm', 'onedl-'))]
    assert set(forks) == {stack == 'onedl'}


def test_the_demo_on_another_stack_takes_the_libraries_of_the_stack(environment):
    assert environment.set_up('demo,dev', stack='onedl').returncode == 0
    assert environment.installed == ['onedl-mmcv'] and not environment.has_stand_in
    assert any(call.endswith('[onedl,cpu,dev]') for call in environment.calls())


@pytest.mark.parametrize(('stack', 'rival'), [('onedl', 'mmengine'), ('', 'onedl-mmengine')])
def test_two_stacks_are_not_mixed_in_one_folder(environment, stack, rival):
    (environment.folder / 'installed' / rival).touch()
    result = environment.set_up(stack=stack)
    assert result.returncode == 1
    assert f'has {rival}, whose modules have the names' in result.stderr
    assert environment.installed == [rival]
    assert not any('-m pip' in call for call in environment.calls())


def test_an_unknown_stack_is_named(environment):
    result = environment.set_up(stack='forks')
    assert result.returncode == 1 and environment.calls() == []
    assert "STACK must be upstream, onedl or mmpretrain, got 'forks'." in result.stderr


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
    for arguments, expected in (([], extras), (['EXTRAS=cpu'], 'cpu')):
        start = f"EXTRAS='{expected}' MORE_EXTRAS='{more}' ./tools/misc/"
        assert plan_of(target, *arguments).startswith(start)


@pytest.mark.parametrize(
    ('stack', 'folder'),
    [([], '.venv'), (['STACK=upstream'], '.venv'), (['STACK=onedl'], '.venv-onedl')],
)
def test_a_stack_has_a_folder_of_its_own(stack, folder):
    set_up, run = plan_of('test', *stack).splitlines()
    assert set_up.endswith(f"'{ROOT / folder}'")
    assert run.split() == [f'{folder}/bin/pytest']


def plan_of(*arguments: str) -> str:
    """Return the commands that make would run."""
    make = shutil.which('make') or pytest.skip('needs make')
    # `make test` hands its own flags and variables on to what it runs.
    inherited = {'EXTRAS', 'MAKEFLAGS', 'MAKELEVEL', 'MFLAGS', 'STACK', 'VENV', 'PYTEST_ARGS'}
    environment = {key: value for key, value in os.environ.items() if key not in inherited}
    return subprocess.run(
        [make, '-n', *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
