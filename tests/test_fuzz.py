"""A few hundred cases of tools/fuzz.py, and that it notices a wrong layer."""

import importlib.util
import sys
from pathlib import Path

import pytest

from mmwcc import kernels

SCRIPT = Path(__file__).resolve().parents[1] / 'tools' / 'fuzz.py'


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('mmwcc_fuzz', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_random_layers_equal_the_reference(tool):
    passed, case, error = tool.fuzz(cases=300, seed=1)
    assert error is None, f'{case}\n{error}'
    assert passed == 300


def test_a_wrong_selection_is_found_and_shrunk(tool, monkeypatch):
    right = kernels.select
    monkeypatch.setattr(
        kernels, 'select', lambda norms, k: right(norms.max() - norms, k)
    )  # the smallest
    _, case, error = tool.fuzz(cases=300, seed=1)
    assert 'wrong positions' in str(error), error
    assert case.selection == 'energy'
    assert case.batch == 1


def test_command_line(tool, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['fuzz.py', '--cases', '5', '--seed', '3'])
    assert tool.main() == 0
    assert capsys.readouterr().out.endswith('5 cases, 0 failures\n')
    monkeypatch.setattr(tool, 'check', lambda case: (_ for _ in ()).throw(AssertionError('broken')))
    assert tool.main() == 1
    assert 'Shrunk configuration:\nCase(batch=1' in capsys.readouterr().out
