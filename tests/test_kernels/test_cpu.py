"""The numba kernels against the torch references."""
import importlib
import os
import subprocess
import sys

import pytest
import torch

from mmwcc import kernels

pytest.importorskip('numba', reason='the kernels are numba; without it the references run, which other tests cover')

haar = importlib.import_module('mmwcc.kernels.haar')
fake_quant = importlib.import_module('mmwcc.kernels.fake_quant')
cpu = importlib.import_module('mmwcc.kernels.cpu.haar')
cpu_fake_quant = importlib.import_module('mmwcc.kernels.cpu.fake_quant')

SHAPES = [(1, 3, 1, 1), (2, 144, 17, 9), (1, 65, 16, 24), (2, 1, 5, 40), (1, 200, 33, 8)]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture(autouse=True)
def _poisoned_memory(monkeypatch):
    """Fill what kernels allocate with NaN, so that a value they forget to write cannot pass."""
    empty_like, new_empty = torch.empty_like, torch.Tensor.new_empty
    monkeypatch.setattr(torch, 'empty_like', lambda *a, **k: empty_like(*a, **k).fill_(float('nan')))
    monkeypatch.setattr(torch.Tensor, 'new_empty', lambda *a, **k: new_empty(*a, **k).fill_(float('nan')))


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('levels', [1, 2, 3, 4])
@pytest.mark.parametrize('shape', SHAPES)
def test_haar_kernels_equal_the_references(shape, levels, layout):
    x = torch.randn(shape).to(memory_format=layout)
    norms = haar._norms(x, levels)
    torch.testing.assert_close(cpu.haar_norms(x, levels), norms, rtol=1e-6, atol=1e-6 * norms.max().item())
    k = max(1, norms.shape[1] // 3)
    slot = kernels.select(norms, k)
    rows = haar._pack(x, slot, k, levels)
    assert torch.equal(cpu.haar_pack(x, slot, k, levels), rows)
    for bias in (None, torch.randn(shape[1])):
        for channels_last in (False, True):
            arguments = (rows, slot, bias, *shape[2:], levels, channels_last)
            expected, got = haar._unpack(*arguments), cpu.haar_unpack(*arguments)
            assert torch.equal(got, expected)
            assert got.stride() == expected.stride()


def test_haar_kernels_do_not_depend_on_the_number_of_threads():
    x = torch.randn(2, 70, 40, 24)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(cpu.haar_norms(x, 3))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)


def test_haar_kernels_keep_nan_and_infinity_visible():
    x = torch.zeros(1, 2, 8, 16)
    x[0, 0, 0, 0], x[0, 1, 0, 8] = float('nan'), float('inf')
    norms = cpu.haar_norms(x, 3)[0]
    assert norms[:64].isnan().any()
    assert not norms[64:].isfinite().all()


@pytest.mark.parametrize('clip_gradient', [False, True])
@pytest.mark.parametrize('symmetric', [False, True])
@pytest.mark.parametrize('signed', [0, 1])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_fake_quant_kernels_equal_the_references(layout, signed, symmetric, clip_gradient):
    x = torch.randn(2, 8, 57, 61).to(memory_format=layout)
    grad = torch.randn(2, 8, 57, 61)
    arguments = (x, torch.tensor(1.1), torch.tensor(signed, dtype=torch.uint8), 4, symmetric, clip_gradient, 0.5)
    assert torch.equal(cpu_fake_quant.fake_quant(*arguments), fake_quant._fake_quant(*arguments))
    grad_x, grad_alpha = cpu_fake_quant.fake_quant_backward(grad, *arguments)
    expected_x, expected_alpha = fake_quant._fake_quant_backward(grad, *arguments)
    assert torch.equal(grad_x, expected_x)
    torch.testing.assert_close(grad_alpha, expected_alpha, rtol=1e-5, atol=1e-3)


def test_fake_quant_keeps_nan_and_clips_infinity():
    x = torch.tensor([float('nan'), float('inf'), -float('inf')])
    y = cpu_fake_quant.fake_quant(x, torch.tensor(1.5), torch.tensor(1), 8, True, True, 1.0)
    assert y[0].isnan() and y[1:].tolist() == [1.5, -1.5]


def _run(code, **environment):
    return subprocess.run([sys.executable, '-c', code], env={**os.environ, **environment}, capture_output=True,
                          text=True)


USES_KERNEL = ('import sys, torch; from mmwcc import kernels; kernels.haar_norms(torch.ones(1, 1, 8, 8), 3); '
               'print("numba" in sys.modules)')


@pytest.mark.parametrize('path, numba', [('reference', 'False'), ('cpu', 'True')])
def test_environment_variable_chooses_the_path(path, numba):
    assert _run(USES_KERNEL, MMWCC_KERNELS=path).stdout.strip() == numba


def test_unknown_path_is_an_error_that_names_the_known_ones():
    result = _run(USES_KERNEL, MMWCC_KERNELS='gpu')
    assert result.returncode != 0
    assert "MMWCC_KERNELS must be one of reference, cpu, got 'gpu'" in result.stderr


def test_missing_numba_falls_back_unless_it_was_asked_for():
    without = ('import importlib.util as u; find = u.find_spec; '
               'u.find_spec = lambda name, *a: None if name == "numba" else find(name, *a); ')
    assert _run(without + USES_KERNEL, MMWCC_KERNELS='cpu').returncode != 0
    environment = {key: value for key, value in os.environ.items() if key != 'MMWCC_KERNELS'}
    result = subprocess.run([sys.executable, '-c', without + USES_KERNEL], env=environment, capture_output=True,
                            text=True)
    assert result.stdout.strip() == 'False'
