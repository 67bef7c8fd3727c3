"""Selection of the kept rows of coefficients: contract, gradient, numba kernels."""

import importlib

import pytest
import torch

from mmwcc import kernels

gather = importlib.import_module('mmwcc.kernels.gather')


@pytest.fixture
def cpu(poison):
    module = pytest.importorskip('mmwcc.kernels.cpu.gather', reason='needs numba')
    poison(module)
    return module


@pytest.mark.parametrize('channels', [1, 16, 150])
def test_numba_kernels_equal_the_references(cpu, channels):
    coefficients, norms = torch.randn(2, 96, channels), torch.rand(2, 96)
    for k in (1, 33, 96):
        slot = kernels.select(norms, k)
        rows = cpu.gather_rows(coefficients, slot, k)
        assert torch.equal(rows, gather._gather(coefficients, slot, k))
        for low, high in ((-127, 127), (0, 255)):
            grid = slot, k, torch.tensor(0.03), low, high
            levels = cpu.gather_rows_int8(coefficients, *grid)
            assert torch.equal(levels, gather._gather_int8(coefficients, *grid))


def test_nan_is_level_0(cpu):
    coefficients, slot = torch.full((1, 1, 1), float('nan')), torch.zeros(1, 1, dtype=torch.int32)
    step = torch.tensor(1.0)
    assert cpu.gather_rows_int8(coefficients, slot, 1, step, -127, 127).item() == 0


def test_gradient():
    coefficients = torch.randn(2, 16, 3, dtype=torch.float64, requires_grad=True)
    slot = kernels.select(torch.rand(2, 16), 5)
    assert torch.autograd.gradcheck(lambda rows: kernels.gather_rows(rows, slot, 5), [coefficients])


def test_contracts_pass_opcheck():
    ops, slot = torch.ops.mmwcc, kernels.select(torch.rand(1, 64), 20)
    coefficients = torch.randn(1, 64, 3)
    torch.library.opcheck(ops.gather_rows, (coefficients, slot, 20))
    torch.library.opcheck(ops.gather_rows, (coefficients.clone().requires_grad_(), slot, 20))
    grid = torch.tensor(0.1), -127, 127
    torch.library.opcheck(ops.gather_rows_int8, (coefficients, slot, 20, *grid))
