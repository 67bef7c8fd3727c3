"""mmwcc/models/depth/losses.py, against values by hand."""

import math

import numpy as np
import pytest
import torch

pytest.importorskip('mmengine')

from mmwcc.models.depth.losses import (
    edge_aware_smoothness,
    least_reprojection_error,
    log_depth_error,
    photometric_error,
    ssim_distance,
)


def test_ssim_of_constant_images():
    x, y = (torch.full((1, 1, 4, 4), value, dtype=torch.float64) for value in (0.2, 0.6))
    similarity = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    torch.testing.assert_close(ssim_distance(x, y), torch.full_like(x, (1 - similarity) / 2))
    assert ssim_distance(x, x).abs().max() < 1e-6


def test_ssim_against_windows_one_by_one():
    x, y = np.random.default_rng(0).random((2, 6, 7))
    padded = [np.pad(image, 1, mode='reflect') for image in (x, y)]
    expected = np.empty((6, 7))
    for i in range(6):
        for j in range(7):
            a, b = (image[i : i + 3, j : j + 3].ravel() for image in padded)
            covariance = np.cov(a, b, bias=True)
            similarity = (
                (2 * a.mean() * b.mean() + 1e-4)
                * (2 * covariance[0, 1] + 9e-4)
                / ((a.mean() ** 2 + b.mean() ** 2 + 1e-4) * (np.trace(covariance) + 9e-4))
            )
            expected[i, j] = np.clip((1 - similarity) / 2, 0, 1)
    ours = ssim_distance(*(torch.from_numpy(image)[None, None] for image in (x, y)))
    np.testing.assert_allclose(ours[0, 0], expected, atol=1e-12)


def test_photometric_error_weighs_its_parts():
    x, y = torch.rand(2, 1, 3, 5, 5)
    expected = 0.85 * ssim_distance(x, y).mean(1) + 0.15 * (x - y).abs().mean(1)
    torch.testing.assert_close(photometric_error(x, y)[:, 0], expected)


def test_least_error_over_sources_and_rest():
    warped = torch.tensor([[[[0.4, 0.1, 0.9]], [[0.2, 0.3, 0.8]]]], requires_grad=True)
    identity = torch.tensor([[[[0.5, 0.5, 0.5]], [[0.6, 0.6, 0.8]]]])
    loss = least_reprojection_error(warped, identity)
    assert loss.item() == pytest.approx((0.2 + 0.1 + 0.5) / 3)
    loss.backward()
    expected = torch.tensor([[[[0, 1, 0]], [[1, 0, 0]]]]) / 3
    torch.testing.assert_close(warped.grad, expected)
    assert least_reprojection_error(warped, None).item() == pytest.approx((0.2 + 0.1 + 0.8) / 3)


def test_smoothness_by_hand():
    """A step of 2 in disparities of mean 2, where the image has a step of 1: exp(-1) in 1 of 3 gaps
    of each row.
    """
    disp = torch.tensor([1.0, 1.0, 3.0, 3.0]).expand(1, 1, 2, 4)
    image = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 3, 2, 4)
    assert edge_aware_smoothness(disp, image).item() == pytest.approx(math.exp(-1) / 3, abs=1e-6)
    assert edge_aware_smoothness(disp, torch.zeros_like(image)).item() == pytest.approx(
        1 / 3, abs=1e-6
    )


def test_log_depth_error_by_hand():
    depth, measured = torch.tensor([[2.0, 4.0, 7.0]]), torch.tensor([[1.0, 4.0, 0.0]])
    assert log_depth_error(depth, measured).item() == pytest.approx(math.log(2) / 2)
    assert log_depth_error(depth, torch.zeros_like(depth)) == 0
