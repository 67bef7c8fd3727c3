"""Bicubic interpolation against a direct implementation of MATLAB's imresize."""

import numpy as np
import pytest
import torch

from mmwcc.functional import resize_bicubic


def imresize(image, scale):
    """MATLAB's imresize(image, 1 / scale, 'bicubic'), axis by axis, in float64."""

    def kernel(x):
        x = np.abs(x)
        near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        return np.where(x <= 1, near, np.where(x <= 2, far, 0))

    for axis in (0, 1):
        size = image.shape[axis]
        centres = (np.arange(size // scale) + 0.5) * scale - 0.5
        taps = np.floor(centres)[:, None].astype(int) + np.arange(-2 * scale - 1, 2 * scale + 2)
        weights = kernel((centres[:, None] - taps) / scale)
        weights /= weights.sum(1, keepdims=True)
        mirrored = np.where(taps < 0, -1 - taps, np.where(taps >= size, 2 * size - 1 - taps, taps))
        image = np.moveaxis(
            np.einsum('ot,ot...->o...', weights, np.moveaxis(image, axis, 0)[mirrored]), 0, axis
        )
    return image


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_shrinking_is_that_of_the_benchmarks_inside_the_border(scale):
    image = np.random.default_rng(0).integers(0, 256, (24 * scale, 30 * scale, 3), dtype=np.uint8)
    ours = (
        resize_bicubic(torch.from_numpy(image).permute(2, 0, 1), (24, 30))
        .permute(1, 2, 0)
        .numpy()
        .astype(int)
    )
    matlab = imresize(image.astype(np.float64), scale).round().clip(0, 255)
    assert ours.shape == (24, 30, 3)
    assert np.abs(ours[3:-3, 3:-3] - matlab[3:-3, 3:-3]).max() <= 1
    assert (ours[3:-3, 3:-3] == matlab[3:-3, 3:-3]).mean() > 0.99


def test_shrinking_keeps_what_is_constant_up_to_the_border():
    assert resize_bicubic(
        torch.full((2, 3, 8, 8), 77, dtype=torch.uint8), (4, 6)
    ).unique().tolist() == [77]


def test_enlarging_gives_back_what_was_smooth():
    ramp = torch.arange(0, 160, 10, dtype=torch.uint8).expand(3, 16, 16)
    enlarged = resize_bicubic(ramp, (32, 32))[:, :, 6:26].int()
    expected = (torch.arange(32) * 5 - 2.5)[6:26]
    assert (enlarged - expected).abs().max() <= 0.5
