"""How kernels are compiled and kept: without a place, by several processes, with damaged files."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys

import pytest
import torch

numba = pytest.importorskip('numba')
np = pytest.importorskip('numpy')
jit = importlib.import_module('mmwcc.kernels.cpu.jit')

SOURCE = """
from mmwcc.kernels.cpu.jit import jit
from mmwcc.kernels.cpu.threads import _run_alone

@jit()
def twice(x, y):
    for n in range(x.size):
        y[n] = x[n] + x[n]

@jit()
def _lines(begin, end, x, y):
    for n in range(begin, end):
        y[n] = x[n] + x[n]

@jit()
def twice_alone(x, y):
    _run_alone(_lines, x.size, 1, (x, y))
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    """A function that returns a kernel as a new process has it, with the cache in a folder."""
    (source := tmp_path / 'module.py').write_text(SOURCE)
    monkeypatch.setattr(jit, '_said', set())

    def load(folder, name='twice'):
        monkeypatch.setattr(numba.config, 'CACHE_DIR', str(folder) if folder else '')
        spec = importlib.util.spec_from_file_location('mmwcc.kernels.module', source)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return getattr(module, name)

    return load


def is_right(kernel, dtype=np.float32):
    x = np.array([1, 2, 3], dtype)
    y = np.zeros_like(x)
    kernel(x, y)
    return y.tolist() == [2, 4, 6]


def from_cache(kernel):
    return sum(kernel.stats.cache_hits.values())


def files(folder, kind):
    return sorted(folder.rglob(f'*.{kind}'))


@pytest.mark.parametrize('name', ['twice', 'twice_alone'])
def test_what_is_compiled_is_kept(load, tmp_path, name):
    assert is_right(first := load(tmp_path / 'cache', name)) and from_cache(first) == 0
    assert is_right(second := load(tmp_path / 'cache', name)) and from_cache(second) == 1


def test_without_a_place_a_notice_names_the_remedy(load, tmp_path, monkeypatch, capsys):
    (tmp_path / '__pycache__').write_text('a file where numba would make a folder')
    for name in ('HOME', 'XDG_CACHE_HOME', 'LOCALAPPDATA'):
        monkeypatch.setenv(name, str(tmp_path / '__pycache__'))
    assert is_right(load(None))
    assert is_right(load(None))
    said = capsys.readouterr().err
    assert said.count('mmwcc: ') == 1 and 'about half a minute, in every process' in said
    assert 'Set NUMBA_CACHE_DIR' in said


def test_the_notice_says_how_much_is_compiled(load, tmp_path, monkeypatch, capsys):
    said = []
    for dtype in (np.float32, np.int64, np.int64):
        monkeypatch.setattr(jit, '_said', set())
        assert is_right(load(tmp_path / 'cache'), dtype)
        said.append(capsys.readouterr().err)
    assert 'compiling the CPU kernels, about half a minute, once' in said[0]
    assert 'compiling some more of the CPU kernels;' in said[1] and 'minute' not in said[1]
    assert said[2] == ''
    for path in files(tmp_path / 'cache', 'nbi'):  # of older sources
        os.utime(path, (1, 1))
    monkeypatch.setattr(jit, '_said', set())
    assert is_right(load(tmp_path / 'cache'), np.int32)
    assert 'about half a minute' in capsys.readouterr().err


def test_a_place_that_goes_away_is_no_error(load, tmp_path, capsys):
    kernel = load(tmp_path / 'cache')
    shutil.rmtree(tmp_path / 'cache')
    (tmp_path / 'cache').write_text('no folder any more')
    assert is_right(kernel) and is_right(kernel, np.int64)
    said = capsys.readouterr().err
    assert said.count('could not be kept') == 1 and 'Set NUMBA_CACHE_DIR' in said


@pytest.mark.parametrize('kind', ['nbi', 'nbc'])
@pytest.mark.parametrize('content', [b'', b'no pickle'])
def test_a_damaged_file_is_replaced(load, tmp_path, kind, content):
    is_right(load(tmp_path / 'cache'))
    (path,) = files(tmp_path / 'cache', kind)
    path.write_bytes(content)
    assert is_right(damaged := load(tmp_path / 'cache')) and from_cache(damaged) == 0
    assert is_right(mended := load(tmp_path / 'cache')) and from_cache(mended) == 1


def test_code_of_other_sources_is_not_used(load, tmp_path, monkeypatch):
    """Kernels are compiled into one another: a change of one file changes those of others."""
    is_right(load(tmp_path / 'cache'))
    monkeypatch.setattr(jit, '_STAMP', 'of another version')
    assert is_right(other := load(tmp_path / 'cache')) and from_cache(other) == 0


def test_processes_that_save_at_once_do_not_mix_their_code(load, tmp_path):
    """Each read the index before the other wrote it; one wrote code last, the other the index."""
    is_right(load(tmp_path / 'a'))
    is_right(load(tmp_path / 'b'), np.int64)
    shutil.copytree(tmp_path / 'a', tmp_path / 'both')
    for path in files(tmp_path / 'b', 'nbc'):
        shutil.copy(path, tmp_path / 'both' / path.relative_to(tmp_path / 'b'))
    assert is_right(load(tmp_path / 'both'))
    assert is_right(load(tmp_path / 'both'), np.int64)


WORKER = """
import sys, torch
from mmwcc import kernels
x = torch.linspace(-2, 2, 41)
print('ready', flush=True)
sys.stdin.readline()
y = kernels.fake_quant(x, torch.tensor([1.0]), torch.tensor(1), 4, True, True, 1.0)
print(y.tolist())
"""


@pytest.mark.slow
def test_several_processes_compile_at_once(tmp_path):
    environment = {**os.environ, 'NUMBA_CACHE_DIR': str(tmp_path), 'MMWCC_KERNELS': 'cpu'}
    command = [sys.executable, '-c', WORKER]
    pipes = dict.fromkeys(('stdin', 'stdout', 'stderr'), subprocess.PIPE)
    workers = [subprocess.Popen(command, env=environment, text=True, **pipes) for _ in range(4)]
    for worker in workers:
        assert worker.stdout.readline() == 'ready\n'
    for worker in workers:
        worker.stdin.write('go\n')
        worker.stdin.flush()
    outputs = [worker.communicate() for worker in workers]
    later = subprocess.run(command, env=environment, input='go\n', text=True, capture_output=True)
    assert [worker.returncode for worker in workers] == [0] * 4, outputs
    expected = (torch.linspace(-2, 2, 41) * 7).clamp(-7, 7).round() / 7
    for stdout in [*(stdout for stdout, _ in outputs), later.stdout.removeprefix('ready\n')]:
        assert torch.allclose(torch.tensor(ast.literal_eval(stdout)), expected)
    assert all('compiling' in stderr for _, stderr in outputs)
    assert 'compiling' not in later.stderr
    assert not list(tmp_path.rglob('*.tmp.*'))
