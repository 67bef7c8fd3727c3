"""What ``make lint`` and git's hooks check, and how much of it is excused."""

import ast
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


def nested_conditionals(node: ast.AST) -> bool:
    """Tell whether a node is a conditional expression with another one inside."""
    return isinstance(node, ast.IfExp) and any(
        isinstance(inner, ast.IfExp) for inner in ast.walk(node) if inner is not node
    )


def assigning_targets(node: ast.AST) -> bool:
    """Tell whether a node is a loop that assigns to an attribute or an element."""
    return isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)) and any(
        isinstance(inner, (ast.Attribute, ast.Subscript)) for inner in ast.walk(node.target)
    )


def wide_assignments(node: ast.AST) -> bool:
    """Tell whether a node assigns four or more values of their own at once."""
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Tuple)
        and isinstance(node.value, ast.Tuple)
        and len(node.value.elts) >= 4
    )


HABITS = [nested_conditionals, assigning_targets, wide_assignments]


def places(text: str, habit) -> list[int]:
    """Return the lines where a habit is found."""
    return [
        (node.target if isinstance(node, ast.comprehension) else node).lineno
        for node in ast.walk(ast.parse(text))
        if habit(node)
    ]


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
    return re.findall(r'\t\$\(BIN\)/(.*)\n', target.group(1))  # the line before them sets up


def test_what_types_cannot_say_is_rare_and_explained():
    ignores = [
        (path, text) for path in SOURCES for text in comments(path) if 'type: ignore' in text
    ]
    assert len(ignores) <= MOST_IGNORES, 'mend the types, or say here why there must be more'
    for path, text in ignores:
        assert re.match(r'# type: ignore\[[a-z-]+(, [a-z-]+)*\]  # \w', text), (
            f'{path}: {text} lacks code or reason'
        )


@pytest.mark.parametrize('habit', HABITS, ids=lambda habit: habit.__name__)
def test_code_that_is_hard_to_read(habit):
    found = [
        f'{path.relative_to(ROOT)}:{line}'
        for path in SOURCES
        for line in places(path.read_text(encoding='utf-8'), habit)
    ]
    assert not found, f'write these as statements of their own: {", ".join(found)}'


@pytest.mark.parametrize(
    ('habit', 'text'),
    [
        (nested_conditionals, 'x = a if b else c if d else e'),
        (nested_conditionals, "x = f'{a if b else c}' if d else e"),
        (assigning_targets, 'for layer.bits in (4, 8):\n    run(layer)'),
        (assigning_targets, 'x = [row for row[0] in rows]'),
        (wide_assignments, 'a, b, c, d = 1, x, 3, y'),
    ],
)
def test_each_habit_is_seen(habit, text):
    assert places(text, habit)
    assert not any(places('a, b, c, d = point\nx = f(a if b else c)', each) for each in HABITS)


def test_no_line_is_longer_than_the_formatter_makes_them():
    ruff = settings()['ruff']
    assert ruff['line-length'] == 100 and 'E' in ruff['lint']['select']
    assert 'pycodestyle' not in ruff['lint'], 'texts and comments are no longer than code'
    ignored = {code for codes in ruff['lint']['per-file-ignores'].values() for code in codes}
    assert ruff['lint']['per-file-ignores']['configs/**'].count('E501') == 1
    assert ignored <= {'F821', 'F405', 'E501'}


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
