"""Bits and scales of rows by their energy: by hand, by definition, and numba against torch."""

import importlib
from itertools import pairwise

import pytest
import torch
from torch.library import opcheck

from mmwcc import kernels
from mmwcc.kernels import WIDTHS, energy_quant, energy_quant_backward

energy = importlib.import_module('mmwcc.kernels.energy')

PRACTICE = (0, 3, 4, 5, 6, 8)
CLIPS = torch.linspace(1.2, 3.8, len(WIDTHS))
SIGNED = torch.tensor(True)
ENERGIES = dict(
    spread=torch.exp(2 * torch.randn(3, 500, generator=torch.Generator().manual_seed(0))),
    extreme=torch.exp(12 * torch.randn(2, 99, generator=torch.Generator().manual_seed(1))),
    equal=torch.ones(2, 10),
    few_values=torch.tensor([[0.0, 1, 4, 4, 16, 1, 0, 64, 16, 4]]),
    zeros=torch.zeros(1, 5),
)


def total_for(energies, theta):
    """Return the bits of all rows, each rounded to the nearest width, up at the middle."""
    level = torch.log2(energies / theta) / 2
    return sum((wide - low) * (level >= (low + wide) / 2).sum() for low, wide in pairwise(PRACTICE))


@pytest.fixture(params=['torch', 'numba'])
def path(request, monkeypatch):
    if request.param == 'numba':
        pytest.importorskip('numba')
        return importlib.import_module('mmwcc.kernels.cpu.energy')
    return type('torch', (), {name: getattr(energy, f'_{name}') for name in NAMES})


NAMES = ('row_bits', 'energy_quant', 'energy_quant_backward')


@pytest.mark.parametrize('values', ENERGIES)
@pytest.mark.parametrize('mean', [0.01, 1, 2, 2.7, 6, 8])
def test_widths_are_those_of_the_smallest_theta_that_fits(path, values, mean):
    """With any smaller theta, the widths would exceed the budget."""
    e = ENERGIES[values]
    total = int(mean * e.shape[1])
    bits = path.row_bits(e, total, PRACTICE)
    for energies, widths in zip(e.double(), bits.int(), strict=True):
        if total < 3:
            assert int(widths.sum()) == 3 * bool(energies.any())
            assert energies[widths > 0].tolist() in ([], [energies.max()])
            continue
        assert widths.sum() <= total
        assert not widths[energies == 0].any()
        # Each row with fewer bits than another has less energy, or the same at a higher position.
        order = sorted(range(len(energies)), key=lambda n: (-energies[n], n))
        assert all(widths[one] >= widths[other] for one, other in pairwise(order))
        # The widths only change at these values of theta.
        steps = [energies / 2.0 ** (low + wide) for low, wide in pairwise(PRACTICE)]
        thetas = torch.cat(steps).unique()
        sums = [int(total_for(energies, theta)) for theta in 1.0001 * thetas[thetas > 0]]
        assert widths.sum() >= max((bits for bits in sums if bits <= total), default=0)


def test_by_hand(path):
    # Half of log2(64 / theta) is 3 for theta = 1; 16 and 4 get 2 and 1, which round to 3 and 0.
    e = torch.tensor([[64.0, 4.0, 16.0, 0.0]])
    assert path.row_bits(e, 6, (0, 3, 4)).tolist() == [[3, 0, 3, 0]]
    assert path.row_bits(e, 7, (0, 3, 4)).tolist() == [[4, 0, 3, 0]]
    # The steps of 64 to 4 bits and of 4 to 3 bits are made at the same theta.
    assert path.row_bits(e, 9, (0, 3, 4)).tolist() == [[4, 0, 3, 0]]
    assert path.row_bits(e, 10, (0, 3, 4)).tolist() == [[4, 3, 3, 0]]
    assert path.row_bits(e, 100, (0, 3, 4)).tolist() == [[4, 4, 4, 0]]
    assert path.row_bits(e, 10, (2, 4)).tolist() == [[4, 2, 2, 2]]
    assert path.row_bits(e, 1, (5,)).tolist() == [[5, 5, 5, 5]]


def test_what_is_left_at_the_threshold_goes_to_lower_positions(path):
    assert path.row_bits(torch.ones(1, 5), 9, (0, 3, 8)).tolist() == [[3, 3, 3, 0, 0]]


@pytest.mark.parametrize('share', [1, 3, 7, 20])
def test_joint_selection_is_a_special_case(path, share):
    """Widths 0 and 8 keep the rows that the k largest norms keep."""
    e = ENERGIES['spread'][:, :20]
    kept = kernels.select(e, share) >= 0
    assert torch.equal(path.row_bits(e, 8 * share, (0, 8)) == 8, kept)


def test_a_row_is_divided_by_its_root_mean_square(path):
    """At 2 bits the levels are -1, 0 and 1 steps, of a clip that is 2 root mean squares."""
    rows = torch.tensor([[[3.0, -3.0, 3.0, 3.0], [0.1, 0.2, -0.4, 0.0]]])
    clips = CLIPS.clone()
    clips[0] = 0.5
    root = rows[0, 1].square().mean().sqrt().item()
    y = path.energy_quant(rows, clips, SIGNED, 4, (2,), True)
    expected = [[1.5, -1.5, 1.5, 1.5], [0.5 * root, 0.5 * root, -0.5 * root, 0.0]]
    torch.testing.assert_close(y[0], torch.tensor(expected))


@pytest.mark.parametrize('signed', [True, False])
@pytest.mark.parametrize('symmetric', [True, False])
def test_rows_equal_fake_quantization_of_each(path, signed, symmetric):
    rows = torch.randn(2, 40, 16) * torch.exp(torch.randn(2, 40, 1))
    sign = torch.tensor(signed)
    widths = path.row_bits(rows.square().mean(-1), 120, PRACTICE)
    y = path.energy_quant(rows, CLIPS, sign, 120, PRACTICE, symmetric)
    for row, width, rounded in zip(
        rows.flatten(0, 1), widths.flatten(), y.flatten(0, 1), strict=True
    ):
        if not width:
            assert not rounded.any()
            continue
        clip = CLIPS[int(width) - 2] * row.square().mean().sqrt()
        expected = kernels.fake_quant(row, clip, sign, int(width), symmetric, True, 1.0)
        torch.testing.assert_close(rounded, expected)


@pytest.mark.parametrize('widths, total', [(PRACTICE, 120), ((4,), 0), ((2, 5), 100)])
def test_gradients_are_those_of_fake_quantization_with_constant_energies(path, widths, total):
    rows, grad = torch.randn(2, 40, 16) * torch.exp(torch.randn(2, 40, 1)), torch.randn(2, 40, 16)
    of_rows, of_clips = path.energy_quant_backward(grad, rows, CLIPS, SIGNED, total, widths, True)
    bits = path.row_bits(rows.square().mean(-1), total, widths)
    expected_rows, expected_clips = torch.zeros_like(rows), torch.zeros(len(WIDTHS))
    for image, n in (bits > 0).nonzero().tolist():
        row, width = rows[image, n], int(bits[image, n])
        root = row.square().mean().sqrt()
        arguments = (CLIPS[width - 2] * root, SIGNED, width, True, True, 1.0)
        one, of_clip = kernels.fake_quant_backward(grad[image, n], row, *arguments)
        expected_rows[image, n] = one
        expected_clips[width - 2] += of_clip * root
    torch.testing.assert_close(of_rows, expected_rows)
    torch.testing.assert_close(of_clips, expected_clips, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('values', ENERGIES)
@pytest.mark.parametrize('widths', [PRACTICE, (0, 8), (3,), (2, 4), (0, *WIDTHS)])
def test_numba_gives_the_widths_of_the_reference(values, widths):
    cpu = pytest.importorskip('mmwcc.kernels.cpu.energy')
    e = ENERGIES[values]
    for mean in (0.1, 1.3, 3, 7):
        if mean >= widths[0]:
            arguments = e, int(mean * e.shape[1]), widths
            assert torch.equal(cpu.row_bits(*arguments), energy._row_bits(*arguments))


def test_half_precision_and_double():
    rows = torch.randn(1, 30, 8)
    expected = energy_quant(rows, CLIPS, SIGNED, 60, PRACTICE, True)
    for dtype, tolerance in ((torch.float64, 1e-5), (torch.bfloat16, 0.05)):
        y = energy_quant(rows.to(dtype), CLIPS, SIGNED, 60, PRACTICE, True)
        assert y.dtype == dtype
        assert (y.float() - expected).norm() < tolerance * expected.norm()


def test_nan_stays():
    rows = torch.randn(1, 6, 8)
    rows[0, 2, 3] = float('nan')
    y = energy_quant(rows, CLIPS, SIGNED, 48, PRACTICE, True)
    assert y[0, 2].isnan().any() and not y[0, :2].isnan().any()


def test_operators():
    rows, clips = torch.randn(2, 9, 4, requires_grad=True), CLIPS.clone().requires_grad_()
    grid = (SIGNED, 30, list(PRACTICE), True)
    opcheck(torch.ops.mmwcc.energy_quant.default, (rows, clips, *grid))
    opcheck(torch.ops.mmwcc.row_bits.default, (torch.rand(2, 9), 30, list(PRACTICE)))
    opcheck(
        torch.ops.mmwcc.energy_quant_backward.default,
        (torch.randn(2, 9, 4), rows.detach(), clips.detach(), *grid),
    )


def test_gradient_through_the_operator():
    rows, clips = torch.randn(2, 9, 4, requires_grad=True), CLIPS.clone().requires_grad_()
    grad = torch.randn(2, 9, 4)
    energy_quant(rows, clips, SIGNED, 30, PRACTICE, True).backward(grad)
    expected = energy_quant_backward(grad, rows, clips, SIGNED, 30, PRACTICE, True)
    torch.testing.assert_close((rows.grad, clips.grad), expected)


@pytest.mark.parametrize('signed', [True, False])
@pytest.mark.parametrize('widths', [(0, 3, 4, 5, 6, 8), (4,), (0, 8)])
def test_integers_times_steps_are_what_is_rounded_to(widths, signed):
    rows = torch.randn(2, 50, 37) * torch.rand(2, 50, 1)
    rows = rows if signed else rows.abs()
    grid = (CLIPS, torch.tensor(signed), 50 * 2, list(widths), True)
    levels, steps = kernels.energy_int8(rows, *grid)
    expected = energy._energy_int8(rows, *grid)
    assert torch.equal(levels, expected[0])
    torch.testing.assert_close(steps, expected[1], rtol=1e-6, atol=0)
    values = (levels.float() + (0 if signed else 128)) * steps.unsqueeze(-1)
    torch.testing.assert_close(values, kernels.energy_quant(rows, *grid))
