"""The fake-quantization operator: grids and slopes by hand, and what torch.library asks of it."""

import pytest
import torch
from torch.library import opcheck

from mmwcc.kernels import fake_quant, fake_quant_backward


def quantize(values, clip, bits, *, signed=True, symmetric=True):
    return fake_quant(
        torch.tensor(values), torch.tensor(clip), torch.tensor(signed), bits, symmetric, True, 1.0
    )


def gradients(values, clip, bits, *, signed=True, symmetric=True, clip_gradient=True, scale=1.0):
    """Return the gradient of each value, and what each value alone gives to that of the clip."""
    alpha, sign = torch.tensor(clip), torch.tensor(signed)
    pairs = [
        fake_quant_backward(
            torch.ones(1), torch.tensor([value]), alpha, sign, bits, symmetric, clip_gradient, scale
        )
        for value in values
    ]
    return [pair[0].item() for pair in pairs], [pair[1].item() for pair in pairs]


def test_signed_two_bits_by_hand():
    # n = 1, step = 1: levels -1, 0, 1; halves go to the even level.
    assert quantize([-3.0, -0.6, -0.5, 0.2, 0.5, 0.7, 9.0], 1.0, 2).tolist() == [
        -1,
        -1,
        0,
        0,
        0,
        1,
        1,
    ]


def test_unsigned_two_bits_by_hand():
    # n = 3, step = 0.5: levels 0, 0.5, 1, 1.5; negative values have no level.
    assert quantize([-3.0, 0.2, 0.3, 0.9, 1.4, 9.0], 1.5, 2, signed=False).tolist() == [
        0,
        0,
        0.5,
        1,
        1.5,
        1.5,
    ]


def test_asymmetric_grid_has_one_more_negative_level():
    assert quantize([-9.0, 9.0], 3.0, 3, symmetric=False).tolist() == [-4, 3]


@pytest.mark.parametrize('bits', range(2, 17))
@pytest.mark.parametrize('signed, symmetric', [(True, True), (True, False), (False, True)])
def test_number_of_levels(bits, signed, symmetric):
    low = -(2 ** (bits - 1) - symmetric) if signed else 0
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    sweep = torch.arange(low - 2, high + 3).double() + 0.25
    clip = torch.tensor(float(high), dtype=torch.float64)  # step 1
    grid = fake_quant(sweep, clip, torch.tensor(signed), bits, symmetric, True, 1.0).unique()
    assert grid.tolist() == list(range(low, high + 1))
    assert len(grid) == (2**bits - symmetric if signed else 2**bits)


def test_gradient_by_hand_signed():
    # clip 2, 3 bits: n = 3, step 2/3. Inside (x_hat - x) / clip, outside the sign.
    grad_x, grad_clip = gradients([-5.0, -1.0, 0.5, 5.0], 2.0, 3)
    assert grad_x == [0, 1, 1, 0]
    assert grad_clip == pytest.approx([-1, (-4 / 3 + 1) / 2, (2 / 3 - 0.5) / 2, 1], abs=1e-6)


def test_gradient_by_hand_unsigned():
    # clip 3, 2 bits: n = 3, step 1. Inside (x_hat - x) / clip, above 1, below zero 0.
    grad_x, grad_clip = gradients([-5.0, 0.25, 1.75, 5.0], 3.0, 2, signed=False)
    assert grad_x == [0, 1, 1, 0]
    assert grad_clip == pytest.approx([0, -0.25 / 3, 0.25 / 3, 1], abs=1e-6)


def test_gradient_by_hand_asymmetric():
    # LSQ's slope below the lowest level is -(n + 1) steps of clip / n.
    _, grad_clip = gradients([-9.0, 9.0], 3.0, 3, symmetric=False)
    assert grad_clip == pytest.approx([-4 / 3, 1], abs=1e-6)


def test_straight_through_everywhere_without_clip_gradient():
    grad_x, grad_clip = gradients([-5.0, 0.5, 5.0], 2.0, 3, clip_gradient=False)
    assert grad_x == [1, 1, 1]
    assert grad_clip[0] == -1
    assert grad_clip[2] == 1


def test_scale_multiplies_the_gradient_of_the_clip_only():
    grad_x, grad_clip = gradients([0.5, 5.0], 2.0, 3, scale=0.5)
    assert grad_x == [1, 0]
    assert grad_clip == pytest.approx([(2 / 3 - 0.5) / 4, 0.5], abs=1e-6)


def test_gradient_of_the_clamp_alone():
    # clip 2, 3 bits, step 2/3: what lies between the clips has no share, what equals one counts.
    values = [-5.0, -2.0, -1.0, 0.5, 1.999, 2.0, 5.0]
    arguments = torch.tensor(2.0), torch.tensor(True), 3, True, True, 1.0, False
    pairs = [
        fake_quant_backward(torch.ones(1), torch.tensor([value]), *arguments) for value in values
    ]
    assert [pair[1].item() for pair in pairs] == pytest.approx([-1, -1, 0, 0, 0, 1, 1], abs=1e-6)
    assert [pair[0].item() for pair in pairs] == [0, 1, 1, 1, 1, 1, 0]


@pytest.mark.parametrize('clip', torch.linspace(0.1, 9.7, 29).tolist())
def test_a_value_that_equals_the_clip_is_clipped_whatever_its_quotient_is_rounded_to(clip):
    alpha = torch.tensor(clip)
    arguments = torch.tensor(False), 8, True, True, 1.0, False
    _, slope = fake_quant_backward(torch.ones(1), alpha.reshape(1), alpha, *arguments)
    assert slope.item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize('shape', [(4, 1, 1, 1), (2, 3, 1, 1), (1, 3, 1, 1), (2, 1, 4, 5)])
@pytest.mark.parametrize('rounding', [True, False])
def test_clips_broadcast(shape, rounding):
    """Each part is what it is alone with its clip, whichever axes a clip is shared over."""
    x = torch.randn(4 if shape[0] == 4 else 2, 3, 4, 5)
    clip, signed, grad = 0.2 + torch.rand(shape), torch.tensor(True), torch.randn(x.shape)
    arguments = signed, 4, True, True, 0.5, rounding
    y = fake_quant(x, clip, *arguments)
    grad_x, grad_clip = fake_quant_backward(grad, x, clip, *arguments)
    assert grad_clip.shape == clip.shape
    for place in torch.cartesian_prod(*map(torch.arange, shape)).tolist():
        part = tuple(slice(None) if size == 1 else n for n, size in zip(place, shape, strict=True))
        alone, one = x[part].contiguous(), clip[tuple(place)]
        assert torch.equal(y[part], fake_quant(alone, one, *arguments))
        expected = fake_quant_backward(grad[part].contiguous(), alone, one, *arguments)
        assert torch.equal(grad_x[part], expected[0])
        torch.testing.assert_close(grad_clip[tuple(place)], expected[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('shape', [(3,), (3, 1, 1, 1), (1, 1, 1, 2)])
def test_clips_that_do_not_fit_are_refused(shape):
    x, signed = torch.randn(2, 3, 4, 5), torch.tensor(True)
    with pytest.raises(
        RuntimeError,
        match='clip_alpha must have one element, or the shape of x with 1 on every axis over which',
    ):
        fake_quant(x, torch.rand(shape), signed, 4, True, True, 1.0)


def test_autograd_is_the_backward_operator():
    x = torch.randn(50, requires_grad=True)
    clip = torch.tensor(0.8, requires_grad=True)
    grad = torch.randn(50)
    arguments = (torch.tensor(True), 4, True, True, 0.3)
    fake_quant(x, clip, *arguments).backward(grad)
    expected = fake_quant_backward(grad, x.detach(), clip.detach(), *arguments)
    assert torch.equal(x.grad, expected[0])
    assert torch.equal(clip.grad, expected[1])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_arithmetic_is_in_float32_at_least(dtype):
    x = torch.linspace(-1.5, 1.5, 301).to(dtype)
    clip = torch.tensor(1.0)
    y = fake_quant(x, clip, torch.tensor(True), 8, True, True, 1.0)
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    expected = ((x.to(compute) * 127).clamp(-127, 127).round() / 127).to(dtype)
    assert y.dtype == dtype
    torch.testing.assert_close(y, expected, rtol=0, atol=torch.finfo(dtype).eps)


def test_nan_stays_nan_and_infinity_is_clipped():
    y = quantize([float('nan'), float('inf'), -float('inf')], 2.0, 4)
    assert y[0].isnan()
    assert y[1:].tolist() == [2, -2]


@pytest.mark.parametrize('clip', [0.0, -1.0])
def test_a_clip_that_left_the_positive_numbers_gives_finite_results(clip):
    y = quantize([-1.0, 0.0, 1.0], clip, 8)
    assert y.isfinite().all()
    assert y.abs().max() < 1e-7


def test_strides_follow_the_input():
    x = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    assert (
        fake_quant(x, torch.tensor(1.0), torch.tensor(True), 8, True, True, 1.0).stride()
        == x.stride()
    )


@pytest.mark.parametrize(
    'dtype, signed, symmetric',
    [(torch.float32, True, True), (torch.bfloat16, False, True), (torch.float64, True, False)],
)
def test_opcheck(dtype, signed, symmetric):
    x = (
        torch.randn(2, 3, 4, 5)
        .to(dtype)
        .contiguous(memory_format=torch.channels_last)
        .requires_grad_()
    )
    clip = torch.tensor(0.9, requires_grad=True)
    arguments = (clip, torch.tensor(signed, dtype=torch.uint8), 4, symmetric, True, 0.5)
    opcheck(torch.ops.mmwcc.fake_quant.default, (x, *arguments))
    opcheck(
        torch.ops.mmwcc.fake_quant_backward.default,
        (torch.randn_like(x), x.detach(), clip.detach(), *arguments[1:]),
    )


def test_opcheck_of_several_clips():
    x = torch.randn(4, 3, 2, 2, requires_grad=True)
    clip = torch.rand(4, 1, 1, 1, requires_grad=True)
    arguments = (clip, torch.tensor(True), 4, True, True, 0.5, False)
    opcheck(torch.ops.mmwcc.fake_quant.default, (x, *arguments))
    opcheck(
        torch.ops.mmwcc.fake_quant_backward.default,
        (torch.randn_like(x), x.detach(), clip.detach(), *arguments[1:]),
    )


def test_opcheck_of_an_empty_tensor():
    arguments = (torch.tensor(0.9), torch.tensor(True), 4, True, True, 0.5)
    opcheck(torch.ops.mmwcc.fake_quant.default, (torch.empty(0, 3), *arguments))
