"""The Haar operators: golden values, PyWavelets, adjointness, layouts, dtypes, torch.library."""

import pytest
import torch
from torch.library import opcheck

from mmwcc.kernels import haar_norms, haar_pack, haar_shrink, haar_unpack, position_count, select
from mmwcc.testing import Transform, relative_error, to_numpy

SIZES = [(1, 1), (1, 9), (10, 1), (8, 8), (7, 5), (16, 24), (17, 15)]
LEVELS = [1, 2, 3, 4]


def keep_all(x, levels):
    positions = position_count(*x.shape[2:], levels)
    return torch.arange(positions, dtype=torch.int32).repeat(x.shape[0], 1), positions


def random_slot(batch, height, width, levels, k, seed=0):
    positions = position_count(height, width, levels)
    return select(
        torch.rand(batch, positions, generator=torch.Generator().manual_seed(seed)), k
    ), positions


def coefficients(x, levels):
    slot, positions = keep_all(x, levels)
    return haar_pack(x, slot, positions, levels)


def test_golden_values_of_a_cell():
    cell = torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]]])  # a b / c d
    halves = (1 + 2 + 3 + 5, 1 + 2 - 3 - 5, 1 - 2 + 3 - 5, 1 - 2 - 3 + 5)
    expected = [total / 2 for total in halves]
    assert coefficients(cell, 1).flatten().tolist() == expected


def test_golden_values_of_a_4x4_map_at_two_levels():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    # Each 2 x 2 cell starting at a holds a, a+1, a+4, a+5: cA = 2a + 5, cH = -4, cV = -1, cD = 0.
    # The four cA are 5, 9, 21, 25: cA = 30, cH = -16, cV = -4, cD = 0.
    assert coefficients(x, 2).flatten().tolist() == [30, -16, -4, 0] + 4 * [-4, -1, 0]


def test_golden_norms_sum_over_channels():
    x = torch.stack([torch.ones(2, 2), 2 * torch.ones(2, 2)]).unsqueeze(0)
    assert haar_norms(x, 1).tolist() == [[2.0**2 + 4.0**2, 0, 0, 0]]


@pytest.mark.parametrize('height, width', SIZES)
@pytest.mark.parametrize('levels', LEVELS)
def test_coefficients_equal_pywt(height, width, levels):
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    expected = Transform(height, width, levels, 'haar').analysis(to_numpy(x)).transpose(0, 2, 1)
    assert relative_error(coefficients(x, levels), expected) < 1e-13
    assert relative_error(coefficients(x.float(), levels), expected) < 1e-6
    assert relative_error(haar_norms(x.float(), levels), (expected**2).sum(2)) < 1e-6


@pytest.mark.parametrize('height, width', SIZES)
@pytest.mark.parametrize('levels', LEVELS)
def test_unpack_inverts_pack_where_everything_is_kept(height, width, levels):
    x = torch.randn(2, 3, height, width)
    slot, positions = keep_all(x, levels)
    y = haar_unpack(haar_pack(x, slot, positions, levels), slot, None, height, width, levels, False)
    torch.testing.assert_close(y, x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('height, width', [(8, 8), (16, 24)])
def test_energy_is_preserved(height, width):
    x = torch.randn(2, 5, height, width, dtype=torch.float64)
    torch.testing.assert_close(haar_norms(x, 3).sum(1), x.square().sum((1, 2, 3)))


@pytest.mark.parametrize('height, width', SIZES)
@pytest.mark.parametrize('levels', LEVELS)
def test_pack_and_unpack_are_adjoint(height, width, levels):
    positions = position_count(height, width, levels)
    k = max(1, positions // 3)
    slot, _ = random_slot(2, height, width, levels, k)
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    rows = torch.randn(2, k, 3, dtype=torch.float64)
    left = (haar_pack(x, slot, k, levels) * rows).sum()
    right = (x * haar_unpack(rows, slot, None, height, width, levels, False)).sum()
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


def test_rows_are_the_kept_coefficients_in_ascending_position():
    x = torch.randn(2, 3, 8, 8)
    slot, _ = random_slot(2, 8, 8, 2, 20)
    rows, everything = haar_pack(x, slot, 20, 2), coefficients(x, 2)
    for image in range(2):
        assert torch.equal(rows[image], everything[image][slot[image] >= 0])


def test_unpack_puts_zeros_where_nothing_was_kept():
    x = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    slot, _ = random_slot(1, 8, 8, 3, 5)
    y = haar_unpack(haar_pack(x, slot, 5, 3), slot, None, 8, 8, 3, False)
    dropped = coefficients(y, 3)[0][slot[0] < 0]
    assert dropped.abs().max() < 1e-14
    assert len(dropped) == 59


def test_bias_is_added_once_to_every_pixel():
    slot, positions = keep_all(torch.empty(1, 2, 7, 5), 2)
    y = haar_unpack(torch.zeros(1, positions, 2), slot, torch.tensor([1.0, -2.0]), 7, 5, 2, False)
    assert torch.equal(y, torch.tensor([1.0, -2.0]).reshape(1, 2, 1, 1).expand(1, 2, 7, 5))


LAYOUTS = {
    'channels_last': lambda x: x.contiguous(memory_format=torch.channels_last),
    'transposed': lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    'strided': lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, ::2, ::2],
    'channels cut out': lambda x: torch.cat([x, x + 1], 1)[:, : x.shape[1]],
    'expanded batch': lambda x: x[:1].expand_as(x),
}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_layout_of_the_input_does_not_matter(layout):
    x = LAYOUTS[layout](torch.randn(2, 3, 7, 10))
    plain = x.clone(memory_format=torch.contiguous_format)
    slot, _ = random_slot(2, 7, 10, 2, 24)
    torch.testing.assert_close(haar_norms(x, 2), haar_norms(plain, 2))
    torch.testing.assert_close(haar_pack(x, slot, 24, 2), haar_pack(plain, slot, 24, 2))


def test_rows_need_not_be_contiguous():
    slot, _ = random_slot(2, 8, 8, 2, 24)
    rows = torch.randn(2, 5, 24).transpose(1, 2)
    expected = haar_unpack(rows.contiguous(), slot, None, 8, 8, 2, False)
    assert torch.equal(haar_unpack(rows, slot, None, 8, 8, 2, False), expected)


@pytest.mark.parametrize('height, width', [(8, 8), (7, 5)])
@pytest.mark.parametrize('channels_last', [False, True])
def test_unpack_writes_the_layout_asked_for(height, width, channels_last):
    slot, positions = keep_all(torch.empty(2, 3, height, width), 2)
    y = haar_unpack(torch.randn(2, positions, 3), slot, None, height, width, 2, channels_last)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    assert y.stride() == torch.empty(2, 3, height, width, memory_format=memory_format).stride()


@pytest.mark.parametrize('channels_last', [False, True])
def test_gradient_of_pack_has_the_layout_of_the_map(channels_last):
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.randn(2, 3, 7, 5).contiguous(memory_format=memory_format).requires_grad_()
    slot, _ = random_slot(2, 7, 5, 2, 20)
    (grad,) = torch.autograd.grad(haar_pack(x, slot, 20, 2).sum(), x)
    assert grad.stride() == x.stride()


@pytest.mark.parametrize(
    'dtype, tolerance', [(torch.bfloat16, 8e-3), (torch.float16, 1e-3), (torch.float64, 1e-14)]
)
def test_dtypes(dtype, tolerance):
    x = torch.randn(2, 4, 9, 16).to(dtype)
    transform = Transform(9, 16, 3, 'haar')
    expected = transform.analysis(to_numpy(x))
    slot, positions = keep_all(x, 3)
    norms, rows = haar_norms(x, 3), haar_pack(x, slot, positions, 3)
    assert norms.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert relative_error(norms, (expected**2).sum(1)) < 1e-6
    assert rows.dtype == dtype
    assert relative_error(rows, expected.transpose(0, 2, 1)) < tolerance
    y = haar_unpack(rows, slot, None, 9, 16, 3, False)
    assert y.dtype == dtype
    assert relative_error(y, transform.synthesis(to_numpy(rows).transpose(0, 2, 1))) < tolerance


def test_autocast_does_not_reach_into_the_operators():
    x = torch.randn(2, 4, 8, 8)
    slot, _ = random_slot(2, 8, 8, 3, 16)
    rows = haar_pack(x, slot, 16, 3)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(haar_norms(x, 3), haar_norms(x, 3).float())
        assert torch.equal(haar_pack(x, slot, 16, 3), rows)
        inside = haar_unpack(rows, slot, None, 8, 8, 3, False)
    assert torch.equal(inside, haar_unpack(rows, slot, None, 8, 8, 3, False))


def test_nan_stays_visible():
    x = torch.zeros(1, 2, 8, 8)
    x[0, 1, 3, 3] = float('nan')
    norms = haar_norms(x, 3)
    slot = select(norms, 10)
    assert norms.isnan().sum() == 10  # cA and 3 details of each of the 3 levels cover the pixel
    assert haar_unpack(haar_pack(x, slot, 10, 3), slot, None, 8, 8, 3, False)[0, 1, 3, 3].isnan()


def test_empty_batch():
    x = torch.empty(0, 3, 8, 8, requires_grad=True)
    slot = torch.empty(0, 64, dtype=torch.int32)
    assert haar_norms(x, 3).shape == (0, 64)
    rows = haar_pack(x, slot, 16, 3)
    y = haar_unpack(rows, slot, torch.zeros(3), 8, 8, 3, False)
    y.sum().backward()
    assert rows.shape == (0, 16, 3)
    assert y.shape == x.grad.shape == (0, 3, 8, 8)


def test_only_4d_maps_are_accepted():
    with pytest.raises(RuntimeError, match=r'x must have shape \(B, C, H, W\)'):
        haar_norms(torch.empty(3, 8, 8, device='meta'), 3)


@pytest.mark.parametrize('size, levels', [((5, 6), 2), ((1, 4), 1)])
def test_gradcheck_and_gradgradcheck(size, levels):
    slot, _ = random_slot(2, *size, levels, 6)
    x = torch.randn(2, 2, *size, dtype=torch.float64, requires_grad=True)
    rows = torch.randn(2, 6, 2, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)

    def pack(x):
        return haar_pack(x, slot, 6, levels)

    def unpack(rows, bias):
        return haar_unpack(rows, slot, bias, *size, levels, False)

    assert torch.autograd.gradcheck(pack, x)
    assert torch.autograd.gradgradcheck(pack, x)
    assert torch.autograd.gradcheck(unpack, (rows, bias))
    assert torch.autograd.gradgradcheck(unpack, (rows, bias))


def test_gradcheck_and_gradgradcheck_of_shrink():
    x = torch.randn(2, 2, 4, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: haar_shrink(x, 9, 2)[0], x)
    assert torch.autograd.gradgradcheck(lambda x: haar_shrink(x, 9, 2)[0], x)


OPCHECK_MAPS = {
    'plain': lambda: torch.randn(2, 3, 8, 8),
    'requires grad': lambda: torch.randn(2, 3, 7, 5, requires_grad=True),
    'channels_last': lambda: (
        torch.randn(2, 3, 8, 9).contiguous(memory_format=torch.channels_last).requires_grad_()
    ),
    'one channel': lambda: torch.randn(2, 1, 8, 8, requires_grad=True),
    'one pixel': lambda: torch.randn(2, 3, 1, 1, requires_grad=True),
    'half': lambda: torch.randn(2, 3, 8, 8).half(),
    'bfloat16': lambda: torch.randn(2, 3, 8, 8).bfloat16().requires_grad_(),
    'double': lambda: torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True),
    'empty batch': lambda: torch.randn(0, 3, 8, 8, requires_grad=True),
}


@pytest.mark.parametrize('kind', OPCHECK_MAPS)
def test_opcheck_of_norms_pack_and_shrink(kind):
    x = OPCHECK_MAPS[kind]()
    slot, _ = random_slot(len(x), *x.shape[2:], 2, 4)
    opcheck(torch.ops.mmwcc.haar_norms.default, (x.detach(), 2))
    opcheck(torch.ops.mmwcc.haar_pack.default, (x, slot, 4, 2))
    opcheck(torch.ops.mmwcc.haar_shrink.default, (x, 4, 2))
    opcheck(
        torch.ops.mmwcc.haar_shrink_int8.default, (x.detach(), 4, 2, torch.tensor(0.1), -127, 127)
    )


@pytest.mark.parametrize('kind', OPCHECK_MAPS)
@pytest.mark.parametrize('channels_last', [False, True])
def test_opcheck_of_unpack(kind, channels_last):
    x = OPCHECK_MAPS[kind]()
    slot, _ = random_slot(len(x), *x.shape[2:], 2, 4)
    rows = torch.randn(len(x), 4, x.shape[1], dtype=x.dtype, requires_grad=x.requires_grad)
    bias = torch.randn(x.shape[1], dtype=x.dtype, requires_grad=x.requires_grad)
    for bias_or_none in (bias, None):
        opcheck(
            torch.ops.mmwcc.haar_unpack.default,
            (rows, slot, bias_or_none, *x.shape[2:], 2, channels_last, None, None, None),
        )
