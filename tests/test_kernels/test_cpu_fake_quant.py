"""Fake quantization in numba against its reference."""

import importlib

import pytest
import torch

from mmwcc import kernels

pytest.importorskip(
    'numba', reason='the kernels are numba; without it the references run, which other tests cover'
)

fake_quant = importlib.import_module('mmwcc.kernels.fake_quant')
cpu = importlib.import_module('mmwcc.kernels.cpu.fake_quant')

LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture(autouse=True)
def _poisoned_memory(poison):
    poison(cpu)


@pytest.mark.parametrize('clip_gradient', [False, True])
@pytest.mark.parametrize('symmetric', [False, True])
@pytest.mark.parametrize('signed', [0, 1])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_fake_quant_kernels_equal_the_references(layout, signed, symmetric, clip_gradient):
    x = torch.randn(2, 8, 57, 61).to(memory_format=layout)
    grad = torch.randn(2, 8, 57, 61)
    arguments = (
        x,
        torch.tensor(1.1),
        torch.tensor(signed, dtype=torch.uint8),
        4,
        symmetric,
        clip_gradient,
        0.5,
    )
    assert torch.equal(cpu.fake_quant(*arguments), fake_quant._fake_quant(*arguments))
    grad_x, grad_alpha = cpu.fake_quant_backward(grad, *arguments)
    expected_x, expected_alpha = fake_quant._fake_quant_backward(grad, *arguments)
    assert torch.equal(grad_x, expected_x)
    assert grad_x.stride() == expected_x.stride()
    torch.testing.assert_close(grad_alpha, expected_alpha, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize('rounding', [False, True])
@pytest.mark.parametrize('clips', [1, 24])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_fake_quant_kernels_of_weights_equal_the_references(layout, clips, rounding):
    x, grad = torch.randn(24, 60, 9, 9).to(memory_format=layout), torch.randn(24, 60, 9, 9)
    clip = 0.5 + torch.rand(clips, 1, 1, 1)
    arguments = (x, clip, torch.tensor(1), 4, True, True, 0.5, rounding)
    assert torch.equal(cpu.fake_quant(*arguments), fake_quant._fake_quant(*arguments))
    grad_x, grad_clip = cpu.fake_quant_backward(grad, *arguments)
    expected_x, expected_clip = fake_quant._fake_quant_backward(grad, *arguments)
    assert torch.equal(grad_x, expected_x)
    torch.testing.assert_close(grad_clip, expected_clip, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('shape', [(1, 6, 1, 1), (2, 1, 5, 1)])
def test_the_reference_serves_clips_that_do_not_follow_the_memory(shape):
    x, clip = torch.randn(2, 6, 5, 7), 0.5 + torch.rand(shape)
    arguments = (x, clip, torch.tensor(1), 4, True, True, 0.5)
    assert cpu.fake_quant(*arguments) is NotImplemented
    assert torch.equal(kernels.fake_quant(*arguments), fake_quant._fake_quant(*arguments))
    for got, expected in zip(
        kernels.fake_quant_backward(x, *arguments),
        fake_quant._fake_quant_backward(x, *arguments),
        strict=True,
    ):
        assert torch.equal(got, expected)


def test_fake_quant_keeps_nan_and_clips_infinity():
    x = torch.tensor([float('nan'), float('inf'), -float('inf')])
    y = cpu.fake_quant(x, torch.tensor(1.5), torch.tensor(1), 8, True, True, 1.0)
    assert y[0].isnan() and y[1:].tolist() == [1.5, -1.5]
