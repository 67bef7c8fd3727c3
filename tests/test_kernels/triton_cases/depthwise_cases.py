"""The depthwise convolution into coefficients, and the rows out of them."""

import pytest
import torch

from mmwcc import kernels

from .common import BOUNDS, DEVICE, LAYOUTS, REFERENCE, check_levels, error, randn, random_slot


@pytest.mark.parametrize(
    ('size', 'dilation', 'levels'),
    [(1, 1, 1), (3, 1, 3), (3, 2, 2), (5, 1, 3), (5, 3, 4), (7, 2, 1)],
)
@pytest.mark.parametrize(
    ('shape', 'layout'),
    [((2, 20, 9, 7), 'contiguous'), ((1, 70, 7, 9), 'channels_last'), ((1, 20, 1, 8), 'strided')],
)
def test_depthwise(shape, layout, size, dilation, levels):
    x, weight, bias = (
        LAYOUTS[layout](randn(*shape)),
        randn(shape[1], 1, size, size),
        randn(shape[1]),
    )
    for more in ((None, None, None), (bias, 0.5, 6.0)):
        coefficients, norms = kernels.depthwise_haar(
            x, weight, more[0], levels, dilation, *more[1:]
        )
        expected = REFERENCE['depthwise']._depthwise(
            x.double(), weight, more[0], dilation, levels, *more[1:]
        )
        assert error(coefficients, expected[0]) < 1e-6
        assert error(norms, expected[1]) < 1e-6
    slot, k = random_slot(shape[0], *shape[2:], levels, 20)
    rows = kernels.gather_rows(coefficients, slot, k)
    assert torch.equal(rows, REFERENCE['gather']._gather(coefficients, slot, k))
    step = torch.full((1,), 0.03, device=DEVICE)
    check_levels(
        kernels.gather_rows_int8(coefficients, slot, k, step, -127, 127), rows, 0.03, -127, 127
    )


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('levels', [3, 4])
def test_depthwise_in_half_precision(dtype, levels):
    x, weight = (
        LAYOUTS['channels_last'](randn(1, 40, 9, 13, dtype=dtype)),
        randn(40, 1, 3, 3, dtype=dtype),
    )
    coefficients, norms = kernels.depthwise_haar(x, weight, None, levels, 1, 0.0)
    expected = REFERENCE['depthwise']._depthwise(x.double(), weight, None, 1, levels, 0.0, None)
    assert coefficients.dtype == dtype
    assert error(coefficients, expected[0]) < BOUNDS[dtype]
    assert error(norms, expected[1]) < 1e-4  # of sums of two terms in bfloat16
    slot, k = random_slot(1, 9, 13, levels, 60)
    rows = kernels.gather_rows(coefficients, slot, k)
    assert torch.equal(rows, REFERENCE['gather']._gather(coefficients, slot, k))
