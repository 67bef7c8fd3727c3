"""Documentation that can be checked without running it: links, files, options, registered types,
Python.
"""

import ast
import re
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / 'README.md',
    ROOT / 'CONTRIBUTING.md',
    *sorted((ROOT / 'docs').rglob('*.md')),
    *sorted((ROOT / 'configs').rglob('*.md')),
]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]

FENCE = re.compile(r'^( *)```([a-z]*)[^\n]*\n(.*?)^\1```', re.MULTILINE | re.DOTALL)
LINK = re.compile(r'\[[^\]]*\]\(([^)\s]+)\)')
OPTION = re.compile(r'--[a-z][a-z-]*')
TYPE = re.compile(r"type='mmwcc\.([A-Za-z0-9]+)'")


def blocks(page: Path, *languages: str) -> list[str]:
    """Return the code blocks of a page in some languages, without their indentation."""
    found = []
    for indent, language, code in FENCE.findall(page.read_text(encoding='utf-8')):
        if language in languages:
            found.append('\n'.join(line.removeprefix(indent) for line in code.splitlines()))
    return found


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    text = FENCE.sub('', page.read_text(encoding='utf-8'))
    headings = re.findall(r'^#+ +(.+?)\s*$', text, re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def commands(page: Path) -> list[list[str]]:
    """Return the commands of a page that start a tool of this repository, as words."""
    lines = (
        '\n'.join(blocks(page, 'shell', 'bash', 'sh', 'console')).replace('\\\n', ' ').splitlines()
    )
    lines = [re.sub(r'\[([^\]]*)\]', r'\1', line.removeprefix('$ ')) for line in lines]
    return [
        shlex.split(line, comments=True)
        for line in lines
        if re.search(r'\btools/[\w/]+\.(py|sh)\b', line)
    ]


@pytest.mark.parametrize('page', PAGES, ids=IDS)
def test_links_lead_somewhere(page):
    for target in LINK.findall(FENCE.sub('', page.read_text(encoding='utf-8'))):
        if re.match(r'[a-z]+:', target):
            continue
        path, _, anchor = target.partition('#')
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f'{page.name} links to {target}'
        if anchor:
            assert anchor in anchors(file), (
                f'{page.name} links to {target}; there are {sorted(anchors(file))}'
            )


@pytest.mark.parametrize('page', PAGES, ids=IDS)
def test_commands_name_tools_options_and_configs_that_exist(page):
    for words in commands(page):
        tool = next(word for word in words if re.search(r'tools/[\w/]+\.(py|sh)$', word))
        assert (ROOT / tool).is_file(), f'{page.name}: {tool}'
        source = (ROOT / tool).read_text(encoding='utf-8')
        for shared in ('tools/benchmarks/measuring.py', 'mmwcc/utils/arguments.py'):
            source += (ROOT / shared).read_text(encoding='utf-8')
        for word in words:
            option = OPTION.match(word)
            if option and tool.endswith('.py'):
                assert f"'{option.group()}'" in source, f'{page.name}: {tool} knows no {word}'
            if word.startswith('configs/') and '$' not in word and '*' not in word:
                assert (ROOT / word).is_file(), f'{page.name}: {word}'


@pytest.mark.parametrize('page', PAGES, ids=IDS)
def test_python_is_python(page):
    for code in blocks(page, 'python', 'py'):
        ast.parse(re.sub(r',\s*…', '', code).replace('…', '...'))


def test_types_are_registered():
    pytest.importorskip('mmseg')
    from mmwcc import registry

    named = {
        name: page.name for page in PAGES for name in TYPE.findall(page.read_text(encoding='utf-8'))
    }
    assert len(named) > 20
    registries = [
        value
        for value in vars(registry).values()
        if hasattr(value, 'module_dict') and not isinstance(value, type)
    ]
    for name, page in named.items():
        assert any(found.get(f'mmwcc.{name}') for found in registries), f'{page} names mmwcc.{name}'


def decimals(text: str) -> list[str]:
    return re.findall(r'(?<![\d.,])\d+\.\d+(?![\d.])', text)


def is_reported(figure: str, reported: set[str]) -> bool:
    """Tell whether a figure is one of those reported, or one of them rounded."""
    digits = len(figure.partition('.')[2])
    return any(f'{float(number):.{digits}f}' == figure for number in reported)


@pytest.mark.parametrize(
    'name', ['README.md', 'docs/choosing.md', 'docs/compression.md', 'configs/wcc/README.md']
)
def test_accuracies_are_those_of_the_results(name):
    sources = [ROOT / 'docs' / 'results' / page for page in ('allocation.md', 'camvid.md')]
    published = (ROOT / 'configs' / 'wcc' / 'metafile.yml').read_text(encoding='utf-8')
    reported = {figure for page in sources for figure in decimals(page.read_text(encoding='utf-8'))}
    reported |= set(re.findall(r'mIoU \(paper\): (\S+)', published))
    text = FENCE.sub('', (ROOT / name).read_text(encoding='utf-8'))
    claims = [paragraph for paragraph in text.split('\n\n') if 'mIoU' in paragraph]
    assert claims
    for figure in decimals('\n'.join(claims)):
        assert float(figure) < 10 or is_reported(figure, reported), (
            f'{name} says {figure}, no page of results does'
        )


@pytest.mark.parametrize(
    'name', ['README.md', 'docs/choosing.md', 'docs/compression.md', 'configs/wcc/README.md']
)
def test_accuracies_on_camvid_name_their_split(name):
    text = FENCE.sub('', (ROOT / name).read_text(encoding='utf-8'))
    assert re.search(r'whole\s+test\s+split|every\s+\w+\s+test\s+image|233 test images', text)


@pytest.mark.parametrize('task', ['depth', 'super_resolution'])
def test_metafiles_repeat_the_results(task):
    reported = set(decimals((ROOT / 'docs' / 'results' / f'{task}.md').read_text(encoding='utf-8')))
    models = yaml.safe_load((ROOT / 'configs' / task / 'metafile.yml').read_text(encoding='utf-8'))[
        'Models'
    ]
    figures = [
        value
        for model in models
        for result in model.get('Results') or ()
        for name, value in result['Metrics'].items()
        if '(paper)' not in name
    ]
    assert figures
    for figure in figures:
        assert is_reported(str(figure), reported), f'{figure} is not in docs/results/{task}.md'


def listed(index: Path) -> set[Path]:
    """Return the pages that an index lists, from which the site has its side bar."""
    entries = re.findall(r'^- \[.+\]\((.+)\)$', index.read_text(encoding='utf-8'), re.MULTILINE)
    return {(index.parent / entry).resolve() for entry in entries}


def test_the_index_lists_every_page():
    pages = {page for page in PAGES if page.parent.name != 'api'} | {
        ROOT / 'CHANGELOG.md',
        ROOT / 'docs/api/README.md',
    }
    assert listed(ROOT / 'docs' / 'README.md') == pages - {ROOT / 'docs' / 'README.md'}


def test_the_reference_has_a_page_for_every_public_module():
    api = ROOT / 'docs' / 'api'
    pages = {
        page: re.search(r'automodule:: (\S+)', page.read_text(encoding='utf-8')).group(1)
        for page in api.glob('*.rst')
    }
    assert listed(api / 'README.md') == pages.keys()
    rooms = {f'mmwcc.{path.parent.name}' for path in (ROOT / 'mmwcc').glob('*/__init__.py')}
    internal = {'mmwcc.model_tree', 'mmwcc.engine', 'mmwcc.testing'}
    assert set(pages.values()) == rooms - internal | {
        'mmwcc.engine.hooks',
        'mmwcc.kernels',
        'mmwcc.presets',
    }


def test_the_site_fails_on_any_warning_and_is_built_in_ci():
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    build = re.search(r'^docs:.*\n\t.*\n\t(.*)$', makefile, re.MULTILINE).group(1)
    assert {'--fail-on-warning', '--fresh-env'} <= set(build.split()), (
        'pages that did not change must be read again'
    )
    assert 'make docs' in (ROOT / '.ci' / 'run').read_text(encoding='utf-8')


def test_what_is_wrong_is_seen(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text(
        '# A b: c\n\n[x](#nowhere)\n\n```shell\npython tools/train.py configs/none.py --nope\n```\n'
    )
    assert anchors(page) == {'a-b-c'}
    assert commands(page) == [['python', 'tools/train.py', 'configs/none.py', '--nope']]
    for check in (
        test_links_lead_somewhere,
        test_commands_name_tools_options_and_configs_that_exist,
    ):
        with pytest.raises(AssertionError):
            check(page)
