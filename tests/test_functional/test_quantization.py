"""Quantized products: the same numbers as separate steps, and one saved copy of each operand."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd.graph import saved_tensors_hooks

from mmwcc.functional import QuantizationSpec, quantize, quantized_conv2d, quantized_linear

SIGNED = torch.tensor(1, dtype=torch.uint8)
ACT = QuantizationSpec(4)
WEIGHT = QuantizationSpec(5, clip_gradient=False, normalize='rescale')


def operands(x_shape, weight_shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x, weight = (
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for shape in (x_shape, weight_shape)
    )
    clips = [torch.tensor(clip, dtype=dtype, requires_grad=True) for clip in (1.2, 2.0)]
    return x, weight, *clips


def assert_same_numbers(together, apart, tensors):
    torch.testing.assert_close(together, apart)
    grad = torch.randn_like(apart)
    torch.testing.assert_close(
        torch.autograd.grad(together, tensors, grad), torch.autograd.grad(apart, tensors, grad)
    )


def test_linear_equals_separate_steps():
    rows, weight, act_clip, weight_clip = operands((2, 6, 5), (7, 5, 1, 1))
    together = quantized_linear(
        rows, weight, act=(act_clip, SIGNED, ACT), wgt=(weight_clip, SIGNED, WEIGHT)
    )
    apart = F.linear(
        quantize(rows, act_clip, SIGNED, ACT),
        quantize(weight, weight_clip, SIGNED, WEIGHT).flatten(1),
    )
    assert_same_numbers(together, apart, (rows, weight, act_clip, weight_clip))


@pytest.mark.parametrize(
    'geometry', [dict(), dict(stride=(2, 1), padding=(1, 0)), dict(groups=2, dilation=(2, 2))]
)
def test_conv2d_equals_separate_steps(geometry):
    x, weight, act_clip, weight_clip = operands(
        (2, 4, 9, 8), (6, 4 // geometry.get('groups', 1), 3, 3)
    )
    bias = torch.randn(6, dtype=torch.float64, requires_grad=True)
    together = quantized_conv2d(
        x, weight, bias, **geometry, act=(act_clip, SIGNED, ACT), wgt=(weight_clip, SIGNED, WEIGHT)
    )
    apart = F.conv2d(
        quantize(x, act_clip, SIGNED, ACT),
        quantize(weight, weight_clip, SIGNED, WEIGHT),
        bias,
        **geometry,
    )
    assert_same_numbers(together, apart, (x, weight, bias, act_clip, weight_clip))


@pytest.mark.parametrize('present', ['act', 'wgt', 'none'])
def test_either_quantizer_may_be_missing(present):
    x, weight, act_clip, weight_clip = operands((2, 4, 5, 5), (6, 4, 3, 3))
    act = (act_clip, SIGNED, ACT) if present == 'act' else None
    wgt = (weight_clip, SIGNED, WEIGHT) if present == 'wgt' else None
    apart = F.conv2d(
        x if act is None else quantize(x, *act), weight if wgt is None else quantize(weight, *wgt)
    )
    assert_same_numbers(quantized_conv2d(x, weight, act=act, wgt=wgt), apart, (x, weight))


@pytest.mark.parametrize('frozen', ['x', 'weight', 'clips'])
def test_gradients_of_what_is_not_frozen(frozen):
    x, weight, act_clip, weight_clip = operands((2, 6, 5), (7, 5, 1, 1))
    tensors = dict(x=[x], weight=[weight], clips=[act_clip, weight_clip])
    for tensor in tensors.pop(frozen):
        tensor.requires_grad_(False)
    free = [tensor for group in tensors.values() for tensor in group]
    act, wgt = (act_clip, SIGNED, ACT), (weight_clip, SIGNED, WEIGHT)
    apart = F.linear(quantize(x, *act), quantize(weight, *wgt).flatten(1))
    assert_same_numbers(quantized_linear(x, weight, act=act, wgt=wgt), apart, free)


def test_32_bits_is_the_plain_product_with_zero_gradients_of_the_clips():
    x, weight, act_clip, weight_clip = operands((2, 6, 5), (7, 5, 1, 1))
    off = QuantizationSpec(32)
    y = quantized_linear(x, weight, act=(act_clip, SIGNED, off), wgt=(weight_clip, SIGNED, off))
    assert_same_numbers(y, F.linear(x, weight.flatten(1)), (x, weight))
    y = quantized_linear(x, weight, act=(act_clip, SIGNED, off), wgt=(weight_clip, SIGNED, off))
    y.sum().backward()
    assert act_clip.grad.item() == weight_clip.grad.item() == 0


@pytest.mark.parametrize('convolution', [False, True])
def test_each_operand_is_saved_once_and_never_quantized(convolution):
    shapes = ((2, 4, 8, 8), (6, 4, 3, 3)) if convolution else ((2, 64, 4), (6, 4, 1, 1))
    x, weight, act_clip, weight_clip = operands(*shapes, dtype=torch.float32)
    saved = []
    product = quantized_conv2d if convolution else quantized_linear
    with saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        product(x, weight, act=(act_clip, SIGNED, ACT), wgt=(weight_clip, SIGNED, WEIGHT))
    floats = [tensor for tensor in saved if tensor.numel() > 1]
    assert sorted(tensor.data_ptr() for tensor in floats) == sorted(
        [x.data_ptr(), weight.data_ptr()]
    )


def test_autocast_gives_the_lower_precision_and_keeps_gradients_in_float32():
    rows, weight, act_clip, weight_clip = operands((2, 6, 5), (7, 5, 1, 1), dtype=torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        y = quantized_linear(
            rows, weight, act=(act_clip, SIGNED, ACT), wgt=(weight_clip, SIGNED, WEIGHT)
        )
    y.sum().backward()
    assert y.dtype == torch.bfloat16
    assert {tensor.grad.dtype for tensor in (rows, weight, act_clip, weight_clip)} == {
        torch.float32
    }


@pytest.mark.parametrize('normalize', ['', 'standard', 'rescale'])
def test_normalization_and_its_gradient_by_hand(normalize):
    # mean 2, unbiased std 2: normalized -1, 0, 1. Clip 0.8 and 3 bits: n = 3, so -0.8, 0, 0.8.
    weight = torch.tensor([0.0, 2.0, 4.0], dtype=torch.float64, requires_grad=True)
    clip = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    spec = QuantizationSpec(3, clip_gradient=False, normalize=normalize)
    y = quantize(weight, clip, SIGNED, spec)
    y.backward(torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64))
    expected = {'': [0.0, 0.8, 0.8], 'standard': [-0.8, 0.0, 0.8], 'rescale': [-1.6, 0.0, 1.6]}
    torch.testing.assert_close(y.detach(), torch.tensor(expected[normalize], dtype=torch.float64))
    factor = {'': 1, 'standard': 1 / 2, 'rescale': 1}[normalize]
    assert weight.grad.tolist() == [factor, 10 * factor, 100 * factor]
    clip_grad = {'': 0 + 10 + 100, 'standard': -1 + 100, 'rescale': 2 * (-1 + 100)}
    assert clip.grad.item() == pytest.approx(clip_grad[normalize])
