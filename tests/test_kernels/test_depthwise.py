"""Depthwise convolution into Haar coefficients: contract, gradients, numba kernels."""

import importlib

import pytest
import torch
import torch.nn.functional as F

from mmwcc import kernels

depthwise = importlib.import_module('mmwcc.kernels.depthwise')

LAYOUTS = [torch.contiguous_format, torch.channels_last]
CASES = [  # shape, kernel size, dilation, levels, bounds
    ((2, 5, 12, 17), 3, 1, 3, (None, None)),
    ((1, 40, 19, 26), 3, 1, 2, (0.0, 6.0)),
    ((1, 24, 16, 33), 5, 1, 3, (0.0, None)),
    ((2, 7, 24, 9), 3, 2, 3, (0.5, 2.0)),
    ((1, 16, 1, 9), 3, 1, 3, (0.0, 6.0)),
    ((1, 3, 9, 1), 5, 2, 1, (None, 1.0)),
    ((1, 17, 40, 36), 3, 1, 4, (0.0, 6.0)),
    ((1, 150, 32, 40), 3, 1, 3, (None, None)),
    ((1, 1, 8, 8), 1, 1, 3, (None, None)),
]


def _arguments(
    shape, size, dilation, levels, bounds, layout=torch.contiguous_format, dtype=torch.float32
):
    x = torch.randn(shape, dtype=dtype).to(memory_format=layout)
    weight, bias = (
        torch.randn(shape[1], 1, size, size, dtype=dtype),
        torch.randn(shape[1], dtype=dtype),
    )
    return x, weight, bias, levels, dilation, *bounds


def _slow(x, weight, bias, levels, dilation, low, high):
    y = F.conv2d(x, weight, bias, 1, dilation * (weight.shape[-1] // 2), dilation, x.shape[1])
    y = y if low is None and high is None else y.clamp(low, high)
    positions = kernels.position_count(*x.shape[2:], levels)
    everything = torch.arange(positions, dtype=torch.int32).expand(x.shape[0], positions)
    return kernels.haar_pack(y, everything, positions, levels), kernels.haar_norms(y, levels)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('case', CASES, ids=str)
def test_equals_convolution_and_transform_in_double_precision(case, layout):
    arguments = _arguments(*case, layout, torch.float64)
    for got, expected in zip(kernels.depthwise_haar(*arguments), _slow(*arguments), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('case', CASES, ids=str)
def test_numba_kernels_equal_the_references(case, layout, poison):
    cpu = pytest.importorskip('mmwcc.kernels.cpu.depthwise', reason='needs numba')
    poison(cpu)
    x, weight, bias, levels, dilation, low, high = _arguments(*case, layout)
    for shift in (bias, None):
        arguments = x, weight, shift, dilation, levels, low, high
        got, norms = cpu.depthwise_haar(*arguments)
        exact, exact_norms = depthwise._depthwise(
            *(a.double() if isinstance(a, torch.Tensor) else a for a in arguments)
        )
        assert (got.double() - exact).norm() <= 1e-6 * exact.norm()
        torch.testing.assert_close(
            norms.double(), exact_norms, rtol=1e-5, atol=1e-6 * exact_norms.max().item()
        )


def test_numba_kernels_do_not_depend_on_the_number_of_threads():
    cpu = pytest.importorskip('mmwcc.kernels.cpu.depthwise', reason='needs numba')
    x, weight, bias, levels, dilation, *bounds = _arguments(
        (2, 70, 40, 24), 3, 1, 3, (0.0, 6.0), torch.channels_last
    )
    results = []
    for count in (1, 2):
        torch.set_num_threads(count)
        results.append(cpu.depthwise_haar(x, weight, bias, dilation, levels, *bounds))
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_numba_kernels_keep_nan_and_infinity_visible():
    cpu = pytest.importorskip('mmwcc.kernels.cpu.depthwise', reason='needs numba')
    x, weight = torch.zeros(1, 2, 8, 24), torch.ones(2, 1, 3, 3)
    x[0, 0, 3, 3], x[0, 1, 3, 20] = float('nan'), float('inf')
    norms = cpu.depthwise_haar(x, weight, None, 1, 3, None, None)[1][0]
    assert norms[:64].isnan().any() and not norms[128:].isfinite().all()
    assert (norms[64:128] == 0).all()
    clamped = cpu.depthwise_haar(x, weight, None, 1, 3, 0.0, 6.0)[1][0]
    assert clamped[:64].isnan().any() and clamped[128:].isfinite().all()


@pytest.mark.parametrize('bounds', [(None, None), (-0.5, 1.0)])
@pytest.mark.parametrize(
    'shape, size, dilation',
    [((1, 2, 5, 6), 3, 1), ((1, 2, 4, 4), 5, 1), ((1, 2, 6, 3), 3, 2), ((2, 1, 1, 4), 3, 1)],
)
def test_gradients(shape, size, dilation, bounds):
    x, weight, bias, *rest = _arguments(shape, size, dilation, 2, bounds, dtype=torch.float64)
    tensors = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    assert torch.autograd.gradcheck(lambda *t: kernels.depthwise_haar(*t, *rest)[0], tensors)
    got = torch.autograd.grad(kernels.depthwise_haar(*tensors, *rest)[0].square().sum(), tensors)
    expected = torch.autograd.grad(_slow(*tensors, *rest)[0].square().sum(), tensors)
    for one, two in zip(got, expected, strict=True):
        torch.testing.assert_close(one, two)


def test_contracts_pass_opcheck():
    ops, slot = torch.ops.mmwcc, kernels.select(torch.rand(1, 64), 20)
    x, weight, bias = torch.randn(1, 3, 8, 7), torch.randn(3, 1, 3, 3), torch.randn(3)
    rows, residual = torch.randn(1, 20, 3), torch.randn(1, 3, 8, 7)
    for layout in LAYOUTS:
        y = x.to(memory_format=layout)
        torch.library.opcheck(ops.depthwise_haar, (y, weight, bias, 1, 3, None, None))
        learned = y.clone().requires_grad_(), weight.clone().requires_grad_()
        torch.library.opcheck(ops.depthwise_haar, (*learned, None, 1, 3, 0.0, 6.0))
        for extra in (
            (None, None, None),
            (residual, None, None),
            (residual.requires_grad_(), 0.0, 6.0),
        ):
            torch.library.opcheck(
                ops.haar_unpack,
                (
                    rows.clone().requires_grad_(),
                    slot,
                    bias,
                    8,
                    7,
                    3,
                    layout == torch.channels_last,
                    *extra,
                ),
            )


@pytest.mark.parametrize(
    'weight', [torch.ones(3, 1, 2, 2), torch.ones(3, 2, 3, 3), torch.ones(3, 1, 3, 5)]
)
def test_refuses_other_kernels(weight):
    with pytest.raises(ValueError, match='with K odd'):
        kernels.depthwise_haar(torch.ones(1, 3, 8, 8), weight, None, 3)
