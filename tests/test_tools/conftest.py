"""Runs tools as programs, without the processes."""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


@pytest.fixture
def run_tool(monkeypatch, capsys):
    """A function that runs a tool as the shell does, and returns how it ended.

    It runs in this process, which has imported torch and OpenMMLab already: a new one would take
    longer for that than for its work.
    """

    def run(tool, *arguments):
        monkeypatch.setattr(sys, 'argv', [str(TOOLS / tool), *map(str, arguments)])
        capsys.readouterr()
        code, last_words = 0, ''
        try:
            runpy.run_path(str(TOOLS / tool), run_name='__main__')
        except SystemExit as end:  # with a text, Python prints it and returns 1
            code, last_words = (1, f'{end.code}\n') if isinstance(end.code, str) else (end.code, '')
        said = capsys.readouterr()
        return SimpleNamespace(returncode=code or 0, stdout=said.out, stderr=said.err + last_words)

    return run
