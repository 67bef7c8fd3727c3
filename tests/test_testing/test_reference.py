"""The reference itself: its gradients against differences, and its checks against themselves."""

import numpy as np
import pytest
import torch

from mmwcc.testing import (
    Compression,
    Grid,
    Measured,
    check_selection,
    kept_count,
    reference_wcc,
    select,
)


@pytest.mark.parametrize('wavelet', ['haar', 'bior2.2'])
@pytest.mark.parametrize('act', [None, Grid(1.5, 5)])
def test_gradients_equal_differences(wavelet, act):
    # Rounding has no derivative, so with a quantizer only bias and the clipped range can be
    # checked this way.
    generator = torch.Generator().manual_seed(1)
    x, weight, bias, grad = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in [(1, 2, 5, 7), (3, 2, 1, 1), (3,), (1, 3, 3, 4)]
    )
    arguments = dict(compression=Compression(0.5, 2, wavelet, stride=2), act=act)
    result = reference_wcc(x, weight, bias, **arguments)
    gradients = result.gradients(grad.numpy())
    same_positions = Measured(torch.from_numpy(result.keep), tolerance=np.inf)
    for name, tensor in (('x', x), ('weight', weight), ('bias', bias)):
        if name == 'x' and act is not None:
            continue
        step = torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * 1e-5
        moved = [
            reference_wcc(
                **{'x': x, 'weight': weight, 'bias': bias, name: tensor + sign * step},
                **arguments,
                measured=same_positions,
            ).y
            for sign in (1, -1)
        ]
        measured = ((moved[0] - moved[1]) * grad.numpy()).sum() / 2
        np.testing.assert_allclose((gradients[name] * step.numpy()).sum(), measured, rtol=1e-6)


@pytest.mark.parametrize(
    'keep_ratio, positions, k',
    [(1, 64, 64), (0.1, 64, 7), (0.125, 64, 8), (1 / 3, 9, 3), (1e-9, 64, 1), (0.3, 10, 3)],
)
def test_kept_count(keep_ratio, positions, k):
    assert kept_count(positions, keep_ratio) == k


def test_select_by_hand():
    assert select(np.array([[1.0, 2.0, 2.0, np.nan, np.inf]]), 3).tolist() == [
        [False, True, False, True, True]
    ]


def test_check_selection_can_fail():
    norms = np.array([[4.0, 3.0, 2.0, 1.0]])
    check_selection(np.array([[True, True, False, False]]), norms, 2, 1e-5)
    with pytest.raises(AssertionError, match='wrong positions'):
        check_selection(np.array([[True, False, True, False]]), norms, 2, 1e-5)
    with pytest.raises(AssertionError, match='kept'):
        check_selection(np.array([[True, True, True, False]]), norms, 2, 1e-5)
    near = np.array([[4.0, 3.0 * (1 + 1e-7), 3.0, 1.0]])
    check_selection(np.array([[True, False, True, False]]), near, 2, 1e-5)


def test_grid_takes_only_nearest_levels_over():
    grid, values = Grid(clip=3.0, bits=3), np.array([0.5 + 1e-8, -2.2, 9.0])  # step 1
    assert grid.quantize(values).values.tolist() == [1, -2, 3]
    assert grid.quantize(values, np.array([0.0, -2.0, 3.0]), 1e-5).values.tolist() == [0, -2, 3]
    with pytest.raises(AssertionError, match='nearest'):
        grid.quantize(values, np.array([1.0, -3.0, 3.0]), 1e-5)
    with pytest.raises(AssertionError, match='on the grid'):
        grid.quantize(values, np.array([1.0, -2.2, 3.0]), 1e-5)
