"""Fake quantization and its gradients."""

import pytest
import torch

from mmwcc import kernels

from .common import BOUNDS, DEVICE, LAYOUTS, REFERENCE, error, randn

FAKE_QUANT = [
    (8, 1, False, True),
    (8, 0, False, True),
    (4, 1, True, False),
    (2, 0, True, False),
    (16, 1, True, True),
]


@pytest.mark.parametrize(('bits', 'signed', 'symmetric', 'clip_gradient'), FAKE_QUANT)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_fake_quant(layout, bits, signed, symmetric, clip_gradient):
    x, grad, reference = (
        LAYOUTS[layout](randn(2, 6, 57, 31)),
        randn(2, 6, 57, 31),
        REFERENCE['fake_quant'],
    )
    arguments = (
        x,
        torch.tensor(1.1, device=DEVICE),
        torch.tensor(bool(signed), device=DEVICE),
        bits,
        symmetric,
        clip_gradient,
        0.5,
    )
    y, expected = kernels.fake_quant(*arguments), reference._fake_quant(*arguments)
    assert torch.equal(y, expected)
    assert y.stride() == expected.stride()
    (grad_x, grad_clip), expected = (
        run(grad, *arguments)
        for run in (kernels.fake_quant_backward, reference._fake_quant_backward)
    )
    assert torch.equal(grad_x, expected[0])
    assert grad_x.stride() == expected[0].stride()
    exact = reference._fake_quant_backward(
        grad.double(), x.double(), arguments[1].double(), *arguments[2:]
    )[1]
    assert grad_clip.shape == expected[1].shape
    torch.testing.assert_close(grad_clip.double(), exact, rtol=1e-4, atol=1e-4)
    assert torch.equal(grad_clip, kernels.fake_quant_backward(grad, *arguments)[1])


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_fake_quant_in_half_precision(dtype):
    x, grad = randn(40, 60, dtype=dtype), randn(40, 60, dtype=dtype)
    arguments = (
        torch.ones(1, device=DEVICE),
        torch.ones(1, dtype=torch.uint8, device=DEVICE),
        8,
        False,
        True,
        1.0,
    )
    y, reference = kernels.fake_quant(x, *arguments), REFERENCE['fake_quant']
    assert y.dtype == dtype
    assert error(y, reference._fake_quant(x, *arguments)) < BOUNDS[dtype]
    grad_x, grad_clip = kernels.fake_quant_backward(grad, x, *arguments)
    expected = reference._fake_quant_backward(grad, x, *arguments)
    assert torch.equal(grad_x, expected[0])
    torch.testing.assert_close(grad_clip, expected[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('symmetric', [True, False])
@pytest.mark.parametrize('signed', [0, 1])
def test_fake_quant_without_the_rounding_error_in_the_gradient_of_the_clip(signed, symmetric):
    x, grad = randn(3, 7, 40, 31), randn(3, 7, 40, 31)
    x[0, 0, 0, :4] = torch.tensor([1.1, -1.1, 1.1, 0.0], device=DEVICE)  # at the clips
    arguments = (
        x,
        torch.tensor([1.1], device=DEVICE),
        torch.tensor(signed, device=DEVICE),
        4,
        symmetric,
        True,
        0.5,
        False,
    )
    (grad_x, grad_clip), expected = (
        run(grad, *arguments)
        for run in (kernels.fake_quant_backward, REFERENCE['fake_quant']._fake_quant_backward)
    )
    assert torch.equal(grad_x, expected[0])
    torch.testing.assert_close(grad_clip, expected[1], rtol=1e-4, atol=1e-4)


def test_the_reference_serves_several_clips():
    x, grad, clips = randn(6, 5, 3, 3), randn(6, 5, 3, 3), 0.5 + torch.rand(6, 1, 1, 1).to(DEVICE)
    arguments = (x, clips, torch.tensor(1, device=DEVICE), 4, True, False, 0.5)
    assert torch.equal(
        kernels.fake_quant(*arguments), REFERENCE['fake_quant']._fake_quant(*arguments)
    )
    got = kernels.fake_quant_backward(grad, *arguments)
    for one, expected in zip(
        got, REFERENCE['fake_quant']._fake_quant_backward(grad, *arguments), strict=True
    ):
        assert torch.equal(one, expected)


def test_fake_quant_keeps_nan_and_clips_infinity():
    x = torch.tensor([float('nan'), float('inf'), -float('inf')], device=DEVICE)
    arguments = (
        torch.tensor(1.5, device=DEVICE),
        torch.tensor(1, device=DEVICE),
        8,
        True,
        True,
        1.0,
    )
    y = kernels.fake_quant(x, *arguments)
    assert y[0].isnan() and y[1:].tolist() == [1.5, -1.5]
    assert kernels.fake_quant_backward(torch.ones_like(x), x, *arguments)[1].isnan()
