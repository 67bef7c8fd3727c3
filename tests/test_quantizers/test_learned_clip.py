"""The paper's quantizers, equations (1) and (2), in the words of the paper: clip, q_b,
straight-through.
"""

import pytest
import torch

from mmwcc.quantizers import LearnedClipActQuantizer, LearnedClipWeightQuantizer
from mmwcc.testing import Grid, relative_error, to_numpy

ALL_BITS = range(2, 17)


def activation(bits, clip, signed):
    return LearnedClipActQuantizer(
        bits, signed=signed, calibration=None, initial_clip=clip
    ).double()


def weights(bits, clip, normalize):
    return LearnedClipWeightQuantizer(
        bits, normalize=normalize, calibration=None, initial_clip=clip
    ).double()


def double(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def q(bits, t):
    return torch.round((2**bits - 1) * t) / (2**bits - 1)


def test_signed_by_hand():
    # 3 bits, alpha 3: levels -3 ... 3.
    assert activation(3, 3.0, True)(double(-7, -2.4, -0.6, 0, 0.4, 1.6, 2.9, 3.2)).tolist() == [
        -3,
        -2,
        -1,
        0,
        0,
        2,
        3,
        3,
    ]


def test_unsigned_by_hand():
    # 2 bits, alpha 3: levels 0 ... 3. Negative inputs are clipped to 0.
    assert activation(2, 3.0, False)(double(-7, -0.6, 0.4, 0.6, 1.6, 2.9, 3.2)).tolist() == [
        0,
        0,
        0,
        1,
        2,
        3,
        3,
    ]


@pytest.mark.parametrize('bits', ALL_BITS)
def test_equation_1_signed(bits):
    x = torch.linspace(-4, 4, 1001, dtype=torch.float64) + 1e-4
    expected = 2.5 * q(bits - 1, (x / 2.5).clamp(-1, 1))
    torch.testing.assert_close(activation(bits, 2.5, True)(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('bits', ALL_BITS)
def test_equation_2_unsigned(bits):
    x = torch.linspace(-4, 4, 1001, dtype=torch.float64) + 1e-4
    expected = 2.5 * q(bits, (x / 2.5).clamp(0, 1))
    torch.testing.assert_close(activation(bits, 2.5, False)(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('bits', range(2, 11))
@pytest.mark.parametrize('signed, levels', [(True, lambda b: 2**b - 1), (False, lambda b: 2**b)])
def test_number_of_levels(bits, signed, levels):
    x = torch.linspace(-2, 2, 100001, dtype=torch.float64)
    assert len(activation(bits, 1.0, signed)(x).unique()) == levels(bits)


@pytest.mark.parametrize('bits', ALL_BITS)
@pytest.mark.parametrize('signed', [True, False])
def test_gradients_by_formula(bits, signed):
    quantizer = activation(bits, 1.25, signed)
    x = torch.linspace(-3, 3, 400, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(400, dtype=torch.float64, generator=torch.Generator().manual_seed(bits))
    y = quantizer(x)
    y.backward(grad)
    low = -1.25 if signed else 0.0
    inside = (x >= low) & (x <= 1.25)
    slope = torch.where(inside, (y - x) / 1.25, torch.where(x > 0, 1.0, -1.0 if signed else 0.0))
    assert torch.equal(x.grad, torch.where(inside, grad, 0))
    expected = (grad * slope).sum().detach().reshape(1)
    torch.testing.assert_close(quantizer.clip_alpha.grad, expected, rtol=1e-9, atol=1e-9)


def test_gradient_of_the_clip_by_hand():
    # Signed, 2 bits, alpha 2: levels -2, 0, 2.
    for value, expected in [
        (-5.0, -1),
        (-1.5, (-2 + 1.5) / 2),
        (0.5, (0 - 0.5) / 2),
        (1.5, (2 - 1.5) / 2),
        (5.0, 1),
    ]:
        quantizer = activation(2, 2.0, True)
        quantizer(double(value)).sum().backward()
        assert quantizer.clip_alpha.grad.item() == pytest.approx(expected)


@pytest.mark.parametrize('value', [9.0, -9.0])
def test_outside_the_clips_the_gradient_is_the_derivative(value):
    # There the output is +-alpha exactly, so a difference quotient has to agree.
    quantizer, step = activation(5, 2.0, True), 2**-10
    quantizer(double(value)).sum().backward()
    moved = [activation(5, 2.0 + sign * step, True)(double(value)).item() for sign in (1, -1)]
    assert quantizer.clip_alpha.grad.item() == pytest.approx((moved[0] - moved[1]) / (2 * step))


@pytest.mark.parametrize('normalize', ['standard', 'rescale', None])
@pytest.mark.parametrize('bits', [2, 4, 8])
def test_weights_equal_the_reference(normalize, bits):
    weight = torch.randn(6, 4, 1, 1, dtype=torch.float64, requires_grad=True)
    quantizer = weights(bits, 1.1, normalize)
    grid = Grid(quantizer.clip_alpha.item(), bits, clip_gradient=False, normalize=normalize or '')
    expected = grid.quantize(to_numpy(weight))
    y = quantizer(weight)
    grad = torch.randn_like(y)
    y.backward(grad)
    grad_weight, grad_clip = expected.gradients(to_numpy(grad))
    assert relative_error(y, expected.values) < 1e-12
    assert relative_error(weight.grad, grad_weight) < 1e-12
    assert quantizer.clip_alpha.grad.item() == pytest.approx(grad_clip, rel=1e-9)


@pytest.mark.parametrize(
    'normalize, expected',
    [('standard', [-1.5, 0, 1.5]), ('rescale', [-3, 0, 3]), (None, [1.5, 1.5, 1.5])],
)
def test_weights_by_hand(normalize, expected):
    # mean 10, unbiased std 2 * sqrt(2) / sqrt(2) = 2; normalized -1, 0, 1; levels -1.5, 0, 1.5.
    assert weights(2, 1.5, normalize)(double(8, 10, 12)).tolist() == expected


@pytest.mark.parametrize('normalize, factor', [('standard', 1 / 2), ('rescale', 1), (None, 1)])
def test_the_gradient_of_weights_is_straight_through_everywhere(normalize, factor):
    weight = double(8, 10, 12).requires_grad_()
    grad = double(1, 2, 4)
    weights(4, 0.1, normalize)(weight).backward(
        grad
    )  # a clip that everything but the mean is outside of
    assert torch.equal(weight.grad, factor * grad)


@pytest.mark.parametrize('normalize', ['standard', 'rescale'])
@pytest.mark.parametrize('weight', [torch.full((4, 3, 1, 1), 0.5), torch.ones(1, 1, 1, 1)])
@pytest.mark.filterwarnings('ignore:std_mean.*degrees of freedom:UserWarning')
def test_equal_weights_cannot_be_normalized(normalize, weight):
    quantizer = LearnedClipWeightQuantizer(8, normalize=normalize)
    with pytest.raises(
        ValueError, match=f"must differ from each other for normalize='{normalize}'"
    ):
        quantizer(weight)


def test_equal_weights_are_fine_without_normalization():
    torch.testing.assert_close(
        LearnedClipWeightQuantizer(8, normalize=None)(torch.full((4, 3), 0.5)),
        torch.full((4, 3), 0.5),
        rtol=1e-3,
        atol=0,
    )


def test_32_bits_skips_the_normalization_too():
    weight = torch.full((4, 3, 1, 1), 0.5)
    assert torch.equal(LearnedClipWeightQuantizer(32, normalize='standard')(weight), weight)


def test_weights_are_not_normalized_by_default():
    assert LearnedClipWeightQuantizer(8).normalize is None


def test_bad_normalization():
    with pytest.raises(
        ValueError, match="normalize must be 'standard', 'rescale' or None, got 'mean'"
    ):
        LearnedClipWeightQuantizer(8, normalize='mean')


@pytest.mark.parametrize(
    'build, clip', [(LearnedClipActQuantizer, 8.0), (LearnedClipWeightQuantizer, 3.0)]
)
def test_starting_clips_of_the_authors(build, clip):
    assert build().clip_alpha.item() == clip
