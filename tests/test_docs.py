"""Documentation that can be checked without running it: links, files, options, registered types, Python."""
import ast
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').rglob('*.md')),
         *sorted((ROOT / 'configs').rglob('*.md'))]
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
    lines = '\n'.join(blocks(page, 'shell', 'bash', 'sh', 'console')).replace('\\\n', ' ').splitlines()
    lines = [re.sub(r'\[([^\]]*)\]', r'\1', line.removeprefix('$ ')) for line in lines]
    return [shlex.split(line, comments=True) for line in lines if re.search(r'\btools/[\w/]+\.(py|sh)\b', line)]


@pytest.mark.parametrize('page', PAGES, ids=IDS)
def test_links_lead_somewhere(page):
    for target in LINK.findall(FENCE.sub('', page.read_text(encoding='utf-8'))):
        if re.match(r'[a-z]+:', target):
            continue
        path, _, anchor = target.partition('#')
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f'{page.name} links to {target}'
        if anchor:
            assert anchor in anchors(file), f'{page.name} links to {target}; there are {sorted(anchors(file))}'


@pytest.mark.parametrize('page', PAGES, ids=IDS)
def test_commands_name_tools_options_and_configs_that_exist(page):
    for words in commands(page):
        tool = next(word for word in words if re.search(r'tools/[\w/]+\.(py|sh)$', word))
        assert (ROOT / tool).is_file(), f'{page.name}: {tool}'
        source = (ROOT / tool).read_text(encoding='utf-8')
        source += (ROOT / 'tools' / 'benchmarks' / 'measuring.py').read_text(encoding='utf-8')
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

    named = {name: page.name for page in PAGES for name in TYPE.findall(page.read_text(encoding='utf-8'))}
    assert len(named) > 20
    registries = [value for value in vars(registry).values() if hasattr(value, 'module_dict')]
    for name, page in named.items():
        assert any(found.get(f'mmwcc.{name}') for found in registries), f'{page} names mmwcc.{name}'


def listed(index: Path) -> set[Path]:
    """Return the pages that an index lists, from which the site has its side bar."""
    entries = re.findall(r'^- \[.+\]\((.+)\)$', index.read_text(encoding='utf-8'), re.MULTILINE)
    return {(index.parent / entry).resolve() for entry in entries}


def test_the_index_lists_every_page():
    pages = {page for page in PAGES if page.parent.name != 'api'} | {ROOT / 'CHANGELOG.md', ROOT / 'docs/api/README.md'}
    assert listed(ROOT / 'docs' / 'README.md') == pages - {ROOT / 'docs' / 'README.md'}


def test_the_reference_has_a_page_for_every_public_module():
    api = ROOT / 'docs' / 'api'
    pages = {page: re.search(r'automodule:: (\S+)', page.read_text(encoding='utf-8')).group(1)
             for page in api.glob('*.rst')}
    assert listed(api / 'README.md') == pages.keys()
    rooms = {f'mmwcc.{path.parent.name}' for path in (ROOT / 'mmwcc').glob('*/__init__.py')}
    internal = {'mmwcc.model_tree', 'mmwcc.engine'}
    assert set(pages.values()) == rooms - internal | {'mmwcc.engine.hooks', 'mmwcc.kernels', 'mmwcc.presets'}


def test_the_site_fails_on_any_warning_and_is_built_in_ci():
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    build = re.search(r'^docs: setup.*\n\t(.*)$', makefile, re.MULTILINE).group(1)
    assert {'--fail-on-warning', '--fresh-env'} <= set(build.split()), 'pages that did not change must be read again'
    assert 'make docs' in (ROOT / '.ci' / 'run').read_text(encoding='utf-8')


def test_what_is_wrong_is_seen(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('# A b: c\n\n[x](#nowhere)\n\n```shell\npython tools/train.py configs/none.py --nope\n```\n')
    assert anchors(page) == {'a-b-c'}
    assert commands(page) == [['python', 'tools/train.py', 'configs/none.py', '--nope']]
    for check in (test_links_lead_somewhere, test_commands_name_tools_options_and_configs_that_exist):
        with pytest.raises(AssertionError):
            check(page)
