"""Which implementation runs, and what becomes of a process where numba or Triton does not."""

import importlib
import json
import os
import subprocess
import sys

import pytest
import torch

from mmwcc import kernels
from mmwcc.kernels import dispatch

USES_KERNELS = """
import sys, torch
from mmwcc import kernels
x = torch.ones(1, 1, 8, 8)
norms = kernels.haar_norms(x, 3)
assert kernels.select(norms, 1)[0, 0] == 0 and norms[0].tolist() == [64] + 63 * [0]
print(hasattr(sys.modules.get('numba'), 'njit'))
"""


def run(code, **environment):
    """Run a program in an environment where what is None is not set."""
    merged = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        env={key: value for key, value in merged.items() if value is not None},
    )


@pytest.mark.parametrize('path, numba', [('reference', 'False'), ('cpu', 'True')])
def test_environment_variable_chooses_the_path(path, numba):
    if path == 'cpu':
        pytest.importorskip('numba')
    assert run(USES_KERNELS, MMWCC_KERNELS=path).stdout.strip() == numba


def test_unknown_path_is_an_error_that_names_the_known_ones():
    result = run(USES_KERNELS, MMWCC_KERNELS='gpu')
    assert result.returncode != 0
    assert "MMWCC_KERNELS must be one of reference, cpu, triton, got 'gpu'" in result.stderr


@pytest.fixture
def fresh(monkeypatch):
    """What is decided once in a process is open again, and MMWCC_KERNELS is not set."""

    def forget():
        for cached in (dispatch.chosen_path, dispatch.kernel_of):
            cached.cache_clear()

    monkeypatch.delenv('MMWCC_KERNELS', raising=False)
    monkeypatch.setattr(dispatch, '_left', set())
    forget()
    yield
    forget()


WITHOUT = """
import json, os, sys, torch, warnings
from mmwcc import kernels
from mmwcc.kernels.dispatch import Operator, _left, chosen_path, kernel_of

def spoil(name, folder):
    for module in [module for module in sys.modules if module.split('.')[0] == name]:
        del sys.modules[module]
    if folder:
        sys.path.insert(0, folder)
    else:
        sys.modules[name] = None

def computed():
    norms = kernels.haar_norms(torch.ones(1, 1, 8, 8), 3)
    return norms[0].tolist() == [64] + 63 * [0] and kernels.select(norms, 1)[0, 0].item() == 0

with warnings.catch_warnings(record=True) as caught:
    spoil('numba', {numba!r})
    right = computed() and computed()
    spoil('triton', {triton!r})  # after torch, which looks for it too
    found = [kernel_of(Operator(name, module), 'cuda', torch.float32) is not None
             for name, module in (('haar_norms', 'haar'), ('select', 'select'))]
os.environ['MMWCC_KERNELS'] = 'cpu'
for forget in (_left.clear, chosen_path.cache_clear, kernel_of.cache_clear):
    forget()
try:
    forced = computed()
except RuntimeError as error:
    forced = str(error)
print(json.dumps([right, found, [str(warning.message) for warning in caught], forced]))
"""


def package(folder, name, **modules):
    """Write a package; return the folder to import it from."""
    (place := folder / f'with_{name}' / name).mkdir(parents=True)
    for module, text in modules.items():
        (place / f'{module}.py').write_text(text)
    return str(place.parent)


def without(**arguments):
    result = run(WITHOUT.format(**arguments), MMWCC_KERNELS=None)
    assert result.returncode == 0, result.stderr
    right, found, warnings, forced = json.loads(result.stdout)
    assert right and found == [False, False]
    assert forced.startswith('MMWCC_KERNELS=cpu: the numba kernels do not run here')
    assert 'unset MMWCC_KERNELS' in forced
    for message, path, what in zip(warnings, ('cpu', 'triton'), ('numba', 'Triton'), strict=True):
        assert message.startswith(f'mmwcc: the {what} kernels do not run here')
        assert f'mmwcc[{path}]' in message and 'MMWCC_KERNELS=reference' in message
    return warnings


def test_without_numba_and_triton_the_references_run_and_one_warning_says_so():
    """Or, where they are forced, that is an error."""
    assert all('ModuleNotFoundError' in warning for warning in without(numba=None, triton=None))


def test_with_broken_packages_the_references_run_and_one_warning_says_so(tmp_path):
    broken = 'raise ImportError("needs NumPy 2.0 or less")'
    folders = {name: package(tmp_path, name, __init__=broken) for name in ('numba', 'triton')}
    assert all('ImportError: needs NumPy' in warning for warning in without(**folders))


def test_with_packages_too_old_the_references_run_and_one_warning_says_so(tmp_path):
    """Numba without what we import of it, and the Triton of torch 2.7."""
    pytest.importorskip('llvmlite', reason='without it that import fails first')
    numba = package(tmp_path, 'numba', __init__='', config='DISABLE_JIT = 0')
    triton = package(
        tmp_path,
        'triton',
        language='constexpr = dtype = lambda value: value',
        __init__='from . import language\n__version__ = "3.3.1"\njit = lambda *a, **b: lambda f: f',
    )
    of_numba, of_triton = without(numba=numba, triton=triton)
    assert "'numba" in of_numba  # whichever import fails first, its message names the package
    assert '(ImportError: they need Triton 3.6 or newer, as torch 2.11 or newer' in of_triton
    assert 'got 3.3.1' in of_triton


@pytest.mark.parametrize(
    'path, kind', [(None, 'RuntimeWarning: mmwcc'), ('cpu', 'RuntimeError: MMWCC_KERNELS=cpu')]
)
def test_numba_that_is_switched_off_is_named(path, kind):
    pytest.importorskip('numba')
    result = run(USES_KERNELS, NUMBA_DISABLE_JIT='1', MMWCC_KERNELS=path)
    assert (result.returncode == 0) == (path is None)
    message = f'{kind}: the numba kernels do not run here (ImportError: NUMBA_DISABLE_JIT keeps'
    assert result.stderr.count(message) == 1


@pytest.fixture
def cpu(fresh):
    pytest.importorskip('numba')


def test_a_kernel_that_cannot_be_compiled_is_replaced_by_its_reference(cpu, monkeypatch):
    """As on a processor that LLVM makes no code for: numba compiles at the first call."""

    def fail(x, levels):
        raise NotImplementedError('no such instruction')

    module = importlib.import_module('mmwcc.kernels.cpu.haar')
    x = torch.ones(1, 1, 8, 8)
    monkeypatch.setattr(module, 'haar_norms', fail)
    with pytest.warns(RuntimeWarning, match='NotImplementedError: no such instruction') as caught:
        assert kernels.haar_norms(x, 3).sum() == 64
        assert kernels.haar_norms(x, 2).sum() == 64
    assert len(caught) == 1
    select = dispatch.Operator('select', 'select')
    assert dispatch.kernel_of(select, 'cpu', torch.float32) is None, 'the whole path is left'


def test_a_forced_kernel_that_cannot_be_compiled_is_an_error(cpu, monkeypatch):

    def fail(x, levels):
        raise NotImplementedError('no such instruction')

    monkeypatch.setattr(importlib.import_module('mmwcc.kernels.cpu.haar'), 'haar_norms', fail)
    monkeypatch.setenv('MMWCC_KERNELS', 'cpu')
    with pytest.raises(RuntimeError, match='MMWCC_KERNELS=cpu: the numba kernels .* instruction'):
        kernels.haar_norms(torch.ones(1, 1, 8, 8), 3)


def test_wrong_arguments_are_the_error_of_the_caller(cpu):
    rows, weight = torch.ones(1, 2, 3, dtype=torch.int8), torch.ones(4, 5, dtype=torch.int8)
    with pytest.raises(RuntimeError, match='mat1 and mat2 shapes cannot be multiplied'):
        kernels.int8_linear(rows, weight, torch.ones(4))
    assert not dispatch._left
