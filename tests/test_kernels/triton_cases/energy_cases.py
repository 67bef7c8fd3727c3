"""Quantization of rows by their energy, and its gradients.

Energies are sums, whose last bits depend on the order. Given the same energies, everything else
equals the reference bit for bit.
"""

import importlib

import pytest
import torch

from mmwcc import kernels
from mmwcc.kernels.dispatch import Operator, kernel_of

from .common import BOUNDS, DEVICE, INTERPRETED, error, randn

reference = importlib.import_module('mmwcc.kernels.energy')
triton_energy = importlib.import_module('mmwcc.kernels.triton.energy')
WIDTHS = [((0, 3, 4, 5, 6, 8), 60), ((4,), 0), ((2, 8), 120)]


def arguments(shape, dtype, widths, total, signed):
    rows = (randn(*shape) * torch.exp(randn(*shape[:2], 1))).to(dtype)
    rows[0, 1] = 0
    clips = torch.linspace(1.2, 3.8, 7, device=DEVICE)
    return rows, clips, torch.tensor(signed, device=DEVICE), total, widths, not signed


@pytest.fixture
def same_energies(monkeypatch):
    """Give the kernels the energies of the reference, in place of those that they measure."""

    def of_reference(rows, *more):
        values = rows.to(torch.promote_types(rows.dtype, torch.float32))
        grid = reference.grids(values.square().mean(-1), *more)
        return grid, torch.cat([part.flatten() for part in (grid.step, grid.low, grid.high)])

    monkeypatch.setattr(triton_energy, '_grids', of_reference)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('shape', [(2, 31, 5), (2, 31, 40), (1, 3, 300)])
@pytest.mark.parametrize(('widths', 'total'), WIDTHS)
@pytest.mark.parametrize('signed', [True, False])
def test_given_the_energies_rows_are_those_of_the_reference(
    dtype, shape, widths, total, signed, same_energies
):
    given = arguments(shape, dtype, widths, total, signed)
    got, expected = kernels.energy_quant(*given), reference._energy_quant(*given)
    if dtype == torch.bfloat16 and INTERPRETED:  # it rounds to bfloat16 by truncation
        assert error(got, expected) < BOUNDS[dtype]
    else:
        assert torch.equal(got, expected)
    grad = randn(*shape).to(dtype)
    of_rows, of_clips = kernels.energy_quant_backward(grad, *given)
    expected = reference._energy_quant_backward(grad, *given)
    assert torch.equal(of_rows, expected[0])
    assert of_clips.dtype == expected[1].dtype
    assert error(of_clips, expected[1]) < 1e-5


@pytest.mark.parametrize('shape', [(2, 31, 5), (1, 3, 300)])
def test_energies_are_those_of_the_reference_but_for_the_order_of_their_sums(shape):
    given = arguments(shape, torch.float32, *WIDTHS[0], True)
    root = triton_energy._grids(*given)[0].root.squeeze(-1)
    assert error(root, given[0].double().square().mean(-1).sqrt()) < 1e-6


def test_rows_of_any_strides_run_on_triton():
    operator = Operator('energy_quant', 'energy')
    assert kernel_of(operator, DEVICE, torch.float16) is triton_energy.energy_quant
    rows, *given = arguments((2, 20, 8), torch.float32, *WIDTHS[2], True)
    strided = rows.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(kernels.energy_quant(strided, *given), kernels.energy_quant(rows, *given))
