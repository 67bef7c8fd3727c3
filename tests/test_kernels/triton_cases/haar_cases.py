"""Norms, pack, shrink and unpack of maps of every shape, layout, dtype and depth."""

import pytest
import torch

from mmwcc import kernels
from mmwcc.kernels.dispatch import chosen_path

from .common import (
    BOUNDS,
    DEVICE,
    INTERPRETED,
    LAYOUTS,
    REFERENCE,
    check_levels,
    error,
    randn,
    random_slot,
)

MAPS = [
    ((1, 3, 1, 1), 'contiguous'),
    ((2, 24, 17, 9), 'contiguous'),
    ((2, 24, 17, 9), 'channels_last'),
    ((1, 70, 8, 16), 'channels_last'),
    ((2, 2, 1, 21), 'channels_last'),
    ((1, 5, 33, 1), 'contiguous'),
]


def test_dispatch_takes_the_triton_path():
    assert chosen_path(DEVICE) == 'triton'


@pytest.mark.parametrize('levels', [1, 2, 3, 4])
@pytest.mark.parametrize(('shape', 'layout'), MAPS)
def test_haar(shape, layout, levels):
    x, haar = LAYOUTS[layout](randn(*shape)), REFERENCE['haar']
    slot, k = random_slot(shape[0], *shape[2:], levels, 1 + shape[2] * shape[3] // 3)
    assert error(kernels.haar_norms(x, levels), haar._norms(x.double(), levels)) < 1e-6
    rows, expected = kernels.haar_pack(x, slot, k, levels), haar._pack(x.double(), slot, k, levels)
    assert error(rows, expected) < 1e-6
    step = torch.full((1,), 0.02, device=DEVICE)
    check_levels(
        kernels.haar_pack_int8(x, slot, k, levels, step, -100, 127), expected, 0.02, -100, 127
    )
    bias, residual = randn(shape[1]), LAYOUTS[layout](randn(*shape))
    for more in (
        (False, None, None, None),
        (True, residual, -1.0, 0.5),
        (False, residual, 0.0, None),
    ):
        arguments = (slot, bias, *shape[2:], levels, *more)
        y, expected = kernels.haar_unpack(rows, *arguments), haar._unpack(rows.double(), *arguments)
        assert error(y, expected) < 1e-6
        assert y.stride() == expected.stride()


@pytest.mark.parametrize('layout', LAYOUTS)
def test_shrink_is_norms_selection_and_pack(layout):
    x, step = LAYOUTS[layout](randn(2, 20, 9, 10)), torch.full((1,), 0.02, device=DEVICE)
    slot = kernels.select(kernels.haar_norms(x, 2), 40)
    expected = (
        kernels.haar_pack(x, slot, 40, 2),
        kernels.haar_pack_int8(x, slot, 40, 2, step, -127, 127),
    )
    got = kernels.haar_shrink(x, 40, 2), kernels.haar_shrink_int8(x, 40, 2, step, -127, 127)
    for right, (rows, positions) in zip(expected, got, strict=True):
        assert torch.equal(rows, right)
        assert torch.equal(positions, slot)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_haar_of_any_layout(layout):
    x = LAYOUTS[layout](randn(2, 20, 9, 10))
    slot, k = random_slot(2, 9, 10, 2, 40)
    assert error(kernels.haar_norms(x, 2), REFERENCE['haar']._norms(x.double(), 2)) < 1e-6
    rows = kernels.haar_pack(x, slot, k, 2)
    assert error(rows, REFERENCE['haar']._pack(x.double(), slot, k, 2)) < 1e-6
    strided = rows.transpose(1, 2).contiguous().transpose(1, 2)
    y = kernels.haar_unpack(strided, slot, None, 9, 10, 2, True, x)
    assert (
        error(
            y, REFERENCE['haar']._unpack(rows.double(), slot, None, 9, 10, 2, True, x, None, None)
        )
        < 1e-6
    )


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('levels', [2, 3, 4])
def test_haar_in_half_precision(dtype, levels):
    x = LAYOUTS['channels_last'](randn(2, 40, 9, 16, dtype=dtype))
    slot, k = random_slot(2, 9, 16, levels, 50)
    assert error(kernels.haar_norms(x, levels), REFERENCE['haar']._norms(x.double(), levels)) < 1e-6
    rows = kernels.haar_pack(x, slot, k, levels)
    assert rows.dtype == dtype
    assert error(rows, REFERENCE['haar']._pack(x.double(), slot, k, levels)) < BOUNDS[dtype]
    y = kernels.haar_unpack(rows, slot, None, 9, 16, levels, True, x)
    expected = REFERENCE['haar']._unpack(
        rows.double(), slot, None, 9, 16, levels, True, x, None, None
    )
    assert y.dtype == dtype
    assert error(y, expected) < BOUNDS[dtype]


def test_seven_levels_recurse_twice():
    x = randn(1, 3, 5, 70)
    slot, k = random_slot(1, 5, 70, 7, 3000)
    rows = kernels.haar_pack(x, slot, k, 7)
    assert error(rows, REFERENCE['haar']._pack(x.double(), slot, k, 7)) < 1e-6
    y = kernels.haar_unpack(rows, slot, None, 5, 70, 7, False)
    assert (
        error(
            y,
            REFERENCE['haar']._unpack(rows.double(), slot, None, 5, 70, 7, False, None, None, None),
        )
        < 1e-6
    )


def test_more_channels_than_a_block():
    x = LAYOUTS['channels_last'](randn(1, 300, 8, 8))
    slot, k = random_slot(1, 8, 8, 3, 64)
    assert k == 64
    assert error(kernels.haar_norms(x, 3), REFERENCE['haar']._norms(x.double(), 3)) < 1e-6
    y = kernels.haar_unpack(kernels.haar_pack(x, slot, k, 3), slot, None, 8, 8, 3, True)
    assert error(y, x) < 1e-6


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_nan_and_infinity_stay_visible(value):
    x = torch.zeros(1, 2, 8, 16, device=DEVICE)
    x[0, 1, 3, 9] = value
    norms = kernels.haar_norms(x, 3)
    assert not norms[0, 64:].isfinite().all()
    assert not norms[0, :64].any(), 'other tiles are not touched'
    slot = kernels.select(norms, 10)
    y = kernels.haar_unpack(kernels.haar_pack(x, slot, 10, 3), slot, None, 8, 16, 3, False)
    assert not y[0, 1, 3, 9].isfinite()
    coefficients, norms = kernels.depthwise_haar(x, torch.ones(2, 1, 3, 3, device=DEVICE), None, 3)
    assert not coefficients[0, 64:, 1].isfinite().all()
    assert not norms[0, 64:].isfinite().all()


def test_gradients_are_those_of_the_reference():
    x = LAYOUTS['channels_last'](randn(2, 20, 9, 10))
    slot, k = random_slot(2, 9, 10, 3, 60)
    weight, bias = randn(16, 20), randn(16)

    def gradients(dtype):
        leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in (x, weight, bias)]
        rows = torch.nn.functional.linear(kernels.haar_pack(leaves[0], slot, k, 3), leaves[1])
        y = kernels.haar_unpack(rows, slot, leaves[2], 9, 10, 3, True, None, -1.0, 1.0)
        return torch.autograd.grad(y.square().sum(), leaves)

    for got, expected in zip(gradients(torch.float32), gradients(torch.float64), strict=True):
        assert error(got, expected) < 2e-6
        assert got.stride() == expected.stride()


def test_offsets_exceed_32_bits(tmp_path):
    # Two images 2**31 elements apart: float16 in a file of which only the images take room.
    if not INTERPRETED:
        memory = torch.zeros(2**31 + 64, dtype=torch.float16, device=DEVICE)
    else:
        memory = torch.from_file(
            str(tmp_path / 'map'), shared=True, size=2**31 + 64, dtype=torch.float16
        )
    x = memory.as_strided((2, 1, 8, 8), (2**31, 64, 8, 1))
    x.copy_(randn(2, 1, 8, 8))
    assert error(kernels.haar_norms(x, 3), REFERENCE['haar']._norms(x.double(), 3)) < 1e-6
