"""Build the site: `make docs`.

Its pages are those that GitHub shows, and the docstrings of the public modules.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import mmwcc  # noqa: E402

project = 'mmwcc'
author = 'The mmwcc authors'
version = release = mmwcc.__version__

# The sources lie where GitHub shows them. So a relative link leads to the same page here and there.
root_doc = 'docs/README'
include_patterns = ['*.md', 'docs/**', 'configs/**/README.md']
exclude_patterns = ['docs/_build', '.venv*', 'build', 'data', 'work_dirs']
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode']

myst_heading_anchors = 4  # the anchors that GitHub gives headings

autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autodoc_default_options = {'members': True, 'show-inheritance': True}
napoleon_custom_sections = ['Shape']
napoleon_use_rtype = False
napoleon_use_ivar = True  # attributes of named tuples and data classes are documented once

html_theme = 'sphinx_rtd_theme'
html_theme_options = {'navigation_depth': 3}
html_title = f'mmwcc {release}'
html_copy_source = False

_SECTION = re.compile(r'^## (.+)\n+((?:- \[.+\]\(.+\)\n)+)', re.MULTILINE)
_ENTRY = re.compile(r'^- \[(.+)\]\((.+)\.(?:md|rst)\)$', re.MULTILINE)


def navigation(text: str) -> str:
    """Return hidden tables of contents for the lists of an index page, one for each heading."""
    blocks = []
    for title, entries in _SECTION.findall(text):
        lines = '\n'.join(f'{name} <{target}>' for name, target in _ENTRY.findall(entries))
        blocks.append(f'\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{lines}\n```\n')
    return ''.join(blocks)


def add_navigation(app, docname: str, source: list[str]) -> None:
    """Let index pages, which GitHub shows as lists of links, build the side bar."""
    if docname in ('docs/README', 'docs/api/README'):
        source[0] += navigation(source[0])


def lead_to_the_index(app, exception) -> None:
    """Let the top of the site lead to its index, which has the name that GitHub looks for."""
    if exception is None:
        (Path(app.outdir) / 'index.html').write_text(
            '<!DOCTYPE html>\n<meta charset="utf-8">\n<title>mmwcc</title>\n'
            '<meta http-equiv="refresh" content="0; url=docs/README.html">\n'
            '<a href="docs/README.html">mmwcc</a>\n',
            encoding='utf-8',
        )


def setup(app) -> dict:
    app.connect('source-read', add_navigation)
    app.connect('build-finished', lead_to_the_index)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
