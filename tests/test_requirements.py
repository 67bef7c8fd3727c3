"""What is said where an optional package is missing."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from test_imports import ROOT, TORCH_ONLY, imports, module_name, room, source_files

from mmwcc.requirements import ROOMS_WITH_MMENGINE, require

WITHOUT = """
    import sys
    from importlib.abc import MetaPathFinder

    class Missing(MetaPathFinder):
        def find_spec(self, fullname, path=None, target=None):
            if fullname.partition('.')[0] in ('mmengine', 'safetensors'):
                raise ModuleNotFoundError(f'No module named {fullname!r}', name=fullname)

    import importlib.util
    import mmwcc.requirements
    found = mmwcc.requirements.find_spec
    mmwcc.requirements.find_spec = lambda name: None if name == 'mmengine' else found(name)
    sys.meta_path.insert(1, Missing())
    importlib.util.find_spec = mmwcc.requirements.find_spec
"""
REFUSED = """
    import importlib
    for name in ROOMS:
        try:
            importlib.import_module(f'mmwcc.{name}')
        except ModuleNotFoundError as error:
            print(error)
        else:
            print(name, 'was imported')
"""
MISSPELT = """
    from mmwcc.layers import QuantConv2d
    try:
        QuantConv2d(1, 1, 1, act_quant=dict(type='mmwcc.LSQActQuantiser'))
    except ValueError as error:
        print(error)
"""


def run(*parts: str) -> list[str]:
    code = '\n'.join(map(textwrap.dedent, parts))
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_rooms_that_need_mmengine_say_what_to_install():
    rooms = sorted(ROOMS_WITH_MMENGINE)
    assert run(WITHOUT, REFUSED.replace('ROOMS', repr(rooms))) == [
        f'mmwcc.{name} needs mmengine, which is not installed. '
        "Run `pip install 'mmwcc[openmmlab]'`."
        for name in rooms
    ]


def test_a_misspelt_type_is_guessed_without_mmengine():
    (said,) = run(WITHOUT, MISSPELT)
    assert "Did you mean 'mmwcc.LSQActQuantizer'?" in said


def test_the_rooms_are_those_that_import_mmengine():
    def needs_mmengine(path: Path) -> bool:
        text, name = path.read_text(), module_name(path)
        found = imports(text, name, path.name == '__init__.py', anywhere=False)
        return any(module.partition('.')[0] == 'mmengine' for module in found)

    rooms = {
        room(module_name(path))
        for path in source_files()
        if path.is_relative_to(ROOT / 'mmwcc') and needs_mmengine(path)
    }
    assert rooms - TORCH_ONLY == ROOMS_WITH_MMENGINE


def test_an_installed_package_is_not_asked_for():
    require('torch', 'this')


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr('mmwcc.requirements.find_spec', lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"publish needs safetensors, .*'mmwcc\[onnx\]'"):
        require('safetensors', 'publish')
