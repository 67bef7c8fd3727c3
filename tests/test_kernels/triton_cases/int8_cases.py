"""Rounding to 8-bit rows, and their products."""

import pytest
import torch

from mmwcc import kernels

from .common import BOUNDS, DEVICE, INTERPRETED, LAYOUTS, REFERENCE, error, randn


@pytest.mark.parametrize(('low', 'high'), [(-128, 127), (-127, 127), (0, 255)])
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('shape', [(2, 70, 7, 9), (1, 3, 1, 80), (2, 20, 33, 1)])
def test_quantize_int8(shape, layout, low, high):
    x, step = LAYOUTS[layout](randn(*shape)), torch.full((1,), 0.013, device=DEVICE)
    assert torch.equal(
        kernels.quantize_int8(x, step, low, high), REFERENCE['int8']._quantize(x, step, low, high)
    )


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_quantize_int8_of_half_precision(dtype):
    x, step = randn(1, 20, 5, 7, dtype=dtype), torch.full((1,), 0.013, device=DEVICE)
    assert torch.equal(
        kernels.quantize_int8(x, step, 0, 255), REFERENCE['int8']._quantize(x, step, 0, 255)
    )


def test_nan_is_level_0():
    x = torch.tensor([float('nan'), float('inf'), -float('inf'), 0.5, 1.5], device=DEVICE).reshape(
        1, 5, 1, 1
    )
    step = torch.ones(1, device=DEVICE)
    assert kernels.quantize_int8(x, step, -128, 127).flatten().tolist() == [0, 127, -128, 0, 2]
    assert kernels.quantize_int8(x, step, 0, 255).flatten().tolist() == [
        -128,
        127,
        -128,
        -128,
        -126,
    ]


@pytest.mark.parametrize(
    ('batch', 'k', 'channels', 'outputs'), [(1, 1, 1, 1), (2, 70, 24, 40), (1, 200, 300, 130)]
)
@pytest.mark.parametrize('with_bias', [False, True])
def test_int8_linear(batch, k, channels, outputs, with_bias):
    rows = torch.randint(-128, 128, (batch, k, channels), dtype=torch.int8).to(DEVICE)
    weight = torch.randint(-128, 128, (outputs, channels), dtype=torch.int8).to(DEVICE)
    scale, bias = torch.rand(outputs).to(DEVICE), randn(outputs) if with_bias else None
    y, expected = (
        kernels.int8_linear(rows, weight, scale, bias),
        REFERENCE['int8']._linear(rows, weight, scale, bias),
    )
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6)
    for dtype in (torch.bfloat16, torch.float16):
        scale = (scale / 10).to(dtype)
        y = kernels.int8_linear(rows, weight, scale, None)
        assert y.dtype == dtype
        assert (
            error(y, REFERENCE['int8']._linear(rows, weight, scale.double(), None)) < BOUNDS[dtype]
        )


@pytest.mark.parametrize('dtype', [None, torch.bfloat16, torch.float16])
def test_int8_linear_with_factors_and_offset(dtype):
    rows = torch.randint(-128, 128, (2, 70, 24), dtype=torch.int8).to(DEVICE)
    weight = torch.randint(-128, 128, (40, 24), dtype=torch.int8).to(DEVICE)
    scale, bias, factors = torch.rand(40).to(DEVICE) / 100, randn(40), randn(2, 70)
    offset = 128 * weight.sum(1, dtype=torch.int32)
    y = kernels.int8_linear(rows, weight, scale, bias, factors, offset, dtype)
    exact = REFERENCE['int8']._linear(rows, weight, scale.double(), bias, factors, offset)
    assert y.dtype == (dtype or torch.float32)
    assert error(y, exact) < BOUNDS[y.dtype]
    if dtype == torch.float16 or not INTERPRETED:  # which truncates to bfloat16
        same = kernels.int8_linear(rows, weight, scale, bias, factors, offset).to(y.dtype)
        assert torch.equal(y, same)


def test_int8_linear_is_exact():
    rows = torch.full((1, 3, 2000), -128, dtype=torch.int8, device=DEVICE)
    weight = torch.full((2, 2000), 127, dtype=torch.int8, device=DEVICE)
    for dtype in (torch.float32, torch.float64):
        y = kernels.int8_linear(rows, weight, torch.ones(2, dtype=dtype, device=DEVICE), None)
        assert y.dtype == dtype
        assert torch.equal(y, torch.full_like(y, -128 * 127 * 2000))
