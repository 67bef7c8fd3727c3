"""What ``make lint`` and git's hooks check, and how much of it is excused."""

import re
import tokenize
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [
    path
    for folder in ('mmwcc', 'kernels', 'tools')
    for path in sorted((ROOT / folder).rglob('*.py'))
    if '.mim' not in path.parts
]
MOST_IGNORES = 10


def comments(path: Path) -> list[str]:
    with path.open('rb') as file:
        return [
            token.string
            for token in tokenize.tokenize(file.readline)
            if token.type == tokenize.COMMENT
        ]


def settings() -> dict:
    tomllib = pytest.importorskip('tomllib', reason='Python 3.11 reads TOML')
    return tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))['tool']


def lint_commands() -> list[str]:
    target = re.search(
        r'^lint:.*\n((?:\t.*\n)+)', (ROOT / 'Makefile').read_text(encoding='utf-8'), re.MULTILINE
    )
    return [line.strip().removeprefix('$(BIN)/') for line in target.group(1).splitlines()]


def test_what_types_cannot_say_is_rare_and_explained():
    ignores = [
        (path, text) for path in SOURCES for text in comments(path) if 'type: ignore' in text
    ]
    assert len(ignores) <= MOST_IGNORES, 'mend the types, or say here why there must be more'
    for path, text in ignores:
        assert re.match(r'# type: ignore\[[a-z-]+(, [a-z-]+)*\]  # \w', text), (
            f'{path}: {text} lacks code or reason'
        )


def test_every_room_is_checked():
    assert settings()['mypy']['files'] == ['mmwcc', 'kernels']


def test_no_setting_of_mypy_hides_errors():
    mypy = settings()['mypy']
    assert mypy['check_untyped_defs'] and mypy['warn_unused_ignores']
    assert 'ignore-without-code' in mypy['enable_error_code']
    for options in (mypy, *mypy['overrides']):
        assert not {'ignore_errors', 'disable_error_code', 'exclude'} & options.keys()
    mmwcc = [
        module
        for options in mypy['overrides']
        for module in options['module']
        if module.startswith('mmwcc')
    ]
    assert mmwcc == ['mmwcc.kernels.*'], 'installed under this name, but checked where it lies'


def test_git_hooks_run_what_make_lint_runs():
    hooks = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text(encoding='utf-8'))['repos']
    assert [repository['repo'] for repository in hooks] == ['local'], (
        'hooks of other repositories must be downloaded'
    )
    programs = [hook['entry'].removeprefix('.venv/bin/').split()[0] for hook in hooks[0]['hooks']]
    assert programs == [command.split()[0] for command in lint_commands()]


def test_programs_of_make_lint_come_with_the_extra_dev():
    extras = (ROOT / 'setup.py').read_text(encoding='utf-8')
    dev = re.search(r"'dev': \[(.*?)\]", extras, re.DOTALL).group(1)
    for command in lint_commands():
        assert f"'{command.split()[0]}" in dev


def test_continuous_integration_lints_before_it_tests():
    script = (ROOT / '.ci' / 'run').read_text(encoding='utf-8')
    assert 0 < script.index('make lint') < script.index('make test')
