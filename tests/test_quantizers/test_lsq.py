"""LSQ (Esser et al., ICLR 2020): levels, step gradient and its scale, written with the step as the
paper does.
"""

import pytest
import torch

from mmwcc.quantizers import LSQActQuantizer, LSQWeightQuantizer


def lsq_of_the_paper(v, step, grad, low, high, scale):
    """Return the quantized values and the gradients of v and of the step: equations (1) to (3) of
    the paper.
    """
    ratio = v / step
    v_hat = ratio.clamp(low, high).round() * step
    grad_v = torch.where((ratio > low) & (ratio < high), grad, 0)
    slope = torch.where(ratio <= low, low, torch.where(ratio >= high, high, ratio.round() - ratio))
    return v_hat, grad_v, (grad * slope).sum() * scale


def bounds(bits, signed):
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


@pytest.mark.parametrize('bits', range(2, 17))
@pytest.mark.parametrize('signed', [True, False])
def test_activations(bits, signed):
    low, high = bounds(bits, signed)
    quantizer = LSQActQuantizer(bits, signed=signed, calibration=None, initial_clip=1.3).double()
    x = torch.randn(4, 5, 6, dtype=torch.float64, requires_grad=True)
    grad = torch.randn_like(x)
    y = quantizer(x)
    y.backward(grad)
    features = 5 * 6  # of one image: the scale must not depend on the batch
    y_hat, grad_x, grad_step = lsq_of_the_paper(
        x.detach(), quantizer.clip_alpha.detach() / high, grad, low, high, (features * high) ** -0.5
    )
    torch.testing.assert_close(y, y_hat, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(x.grad, grad_x)
    torch.testing.assert_close(
        quantizer.clip_alpha.grad.squeeze(), high * grad_step, rtol=1e-7, atol=1e-9
    )


@pytest.mark.parametrize('bits', range(2, 17))
def test_weights(bits):
    low, high = bounds(bits, True)
    quantizer = LSQWeightQuantizer(bits, calibration=None, initial_clip=0.9).double()
    weight = torch.randn(6, 4, 1, 1, dtype=torch.float64, requires_grad=True)
    grad = torch.randn_like(weight)
    y = quantizer(weight)
    y.backward(grad)
    y_hat, grad_weight, grad_step = lsq_of_the_paper(
        weight.detach(),
        quantizer.clip_alpha.detach() / high,
        grad,
        low,
        high,
        (weight.numel() * high) ** -0.5,
    )
    torch.testing.assert_close(y, y_hat, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(weight.grad, grad_weight)
    torch.testing.assert_close(
        quantizer.clip_alpha.grad.squeeze(), high * grad_step, rtol=1e-7, atol=1e-9
    )


@pytest.mark.parametrize('bits', [2, 4, 8])
def test_an_sgd_step_on_the_clip_is_the_papers_step_times_n(bits):
    low, high = bounds(bits, True)
    quantizer = LSQWeightQuantizer(bits, calibration=None, initial_clip=0.9).double()
    weight = torch.randn(40, dtype=torch.float64)
    grad = torch.randn(40, dtype=torch.float64)
    step = quantizer.clip_alpha.detach().clone() / high
    start, rate = step, 1e-3 * high**-1.5  # moves the step by a thousandth or so
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=rate)
    for _ in range(3):
        _, _, grad_step = lsq_of_the_paper(weight, step, grad, low, high, (40 * high) ** -0.5)
        step = step - rate * grad_step
        optimizer.zero_grad()
        quantizer(weight).backward(grad)
        optimizer.step()
        torch.testing.assert_close(quantizer.clip_alpha.detach() / high, step, rtol=1e-9, atol=0)
    assert 1e-5 < abs(step / start - 1) < 0.1


@pytest.mark.parametrize('bits', range(2, 11))
def test_levels(bits):
    low, high = bounds(bits, True)
    quantizer = LSQActQuantizer(bits, signed=True, calibration=None, initial_clip=float(high))
    levels = quantizer(torch.arange(low - 3.0, high + 4.0)).unique()
    assert levels.tolist() == list(range(low, high + 1))


def test_the_scale_does_not_depend_on_the_batch():
    def gradient(batch):
        quantizer = LSQActQuantizer(4, signed=True, calibration=None, initial_clip=1.0)
        quantizer(batch).mean().backward()
        return quantizer.clip_alpha.grad

    batch = torch.randn(3, 8)
    torch.testing.assert_close(gradient(batch.repeat(5, 1)), gradient(batch))


def test_empty_batch():
    quantizer = LSQActQuantizer(4)
    y = quantizer(torch.empty(0, 3))
    y.sum().backward()
    assert y.shape == (0, 3)
    assert quantizer.clip_alpha.grad.item() == 0
