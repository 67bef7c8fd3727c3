"""A few hundred cases of tools/fuzz.py, and that it notices a wrong layer."""

import importlib.util
import sys
from pathlib import Path

import pytest

from mmwcc import kernels
from mmwcc.functional import QuantizationSpec

SCRIPT = Path(__file__).resolve().parents[1] / 'tools' / 'fuzz.py'


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('mmwcc_fuzz', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))  # where the cases are
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


def test_a_clip_that_serves_another_channel_is_found(tool, monkeypatch):
    right = QuantizationSpec.spread
    monkeypatch.setattr(
        QuantizationSpec, 'spread', lambda spec, clips, x: right(spec, clips.flip(0), x)
    )
    _, case, error = tool.fuzz(cases=300, seed=1)
    assert 'wrong by' in str(error) or 'on the grid' in str(error), error
    assert case.quantizers.per_channel


def test_command_line(tool, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['fuzz.py', '--cases', '5', '--seed', '3'])
    assert tool.main() == 0
    assert capsys.readouterr().out.endswith('5 cases, 0 failures\n')
    monkeypatch.setattr(tool, 'check', lambda case: (_ for _ in ()).throw(AssertionError('broken')))
    assert tool.main() == 1
    assert 'Shrunk configuration:\nCase(batch=1' in capsys.readouterr().out
