"""PSNR, SSIM and Y against hand-computed values and a direct implementation in NumPy."""

import math

import numpy as np
import pytest
import torch

from mmwcc.evaluation import SuperResolutionMetric
from mmwcc.evaluation.image_quality import luma, psnr, ssim


def pixels(height=20, width=23, seed=0):
    return torch.from_numpy(
        np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8)
    )


def noisy(image, seed=1):
    noise = np.random.default_rng(seed).integers(-30, 31, tuple(image.shape))
    return (image.int() + torch.from_numpy(noise)).clamp(0, 255).byte()


def direct_ssim(x, y):
    """Window by window, with means, variances and covariance as they are defined."""
    distance = np.arange(11) - 5
    window = np.exp(-(distance[:, None] ** 2 + distance**2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            a, b = (image[top : top + 11, left : left + 11] for image in (x, y))
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            cov = (window * (a - mean_a) * (b - mean_b)).sum()
            c1, c2 = 2.55**2, 7.65**2
            values.append(
                (2 * mean_a * mean_b + c1)
                * (2 * cov + c2)
                / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
            )
    return np.mean(values)


def test_psnr_by_hand():
    one, other = (
        torch.zeros(1, 2, 2),
        torch.tensor([[[3.0, 0], [0, 1]]]),
    )  # mean squared error 10 / 4
    assert psnr(one, other) == pytest.approx(10 * math.log10(255**2 / 2.5))
    assert psnr(one, one) == math.inf


def test_luma_of_known_colours():
    """Black, white, red, green and blue in BT.601: 16, 235, 81.481, 144.553, 40.966."""
    colours = torch.tensor(
        [[0, 255, 255, 0, 0], [0, 255, 0, 255, 0], [0, 255, 0, 0, 255]], dtype=torch.float64
    )
    torch.testing.assert_close(
        luma(colours[:, None]),
        torch.tensor([[[16, 235, 81.481, 144.553, 40.966]]], dtype=torch.float64),
    )


def test_ssim_is_what_its_definition_says():
    image = pixels()
    other = noisy(image)
    expected = np.mean(
        [
            direct_ssim(a.astype(np.float64), b.astype(np.float64))
            for a, b in zip(image.numpy(), other.numpy(), strict=True)
        ]
    )
    assert ssim(image, other) == pytest.approx(expected, abs=1e-12)
    assert ssim(image, image) == pytest.approx(1)


def evaluate(pairs, inputs=None, **kwargs):
    metric = SuperResolutionMetric(**kwargs)
    metric.process(
        None if inputs is None else dict(inputs=inputs),
        [dict(pred_img=pred, gt_img=gt) for pred, gt in pairs],
    )
    return metric.evaluate(size=len(pairs))


def test_borders_are_left_out():
    image = pixels()
    spoiled = image.clone()
    spoiled[:, :2], spoiled[:, -2:], spoiled[..., :2], spoiled[..., -2:] = 0, 255, 0, 255
    assert evaluate([(spoiled, image)], crop_border=2)['sr/psnr_rgb'] == math.inf
    assert evaluate([(spoiled, image)], crop_border=1)['sr/psnr_rgb'] < 40


def test_values_are_means_over_images():
    first, second = pixels(), pixels(30, 17, seed=2)
    pairs = [(noisy(first), first), (noisy(second), second)]
    result = evaluate(pairs, crop_border=3)
    assert set(result) == {'sr/psnr_rgb', 'sr/ssim_rgb', 'sr/psnr_y', 'sr/ssim_y'}
    cut = [[image[:, 3:-3, 3:-3] for image in pair] for pair in pairs]
    assert result['sr/psnr_rgb'] == pytest.approx(np.mean([psnr(*pair) for pair in cut]))
    luminance = [[luma(image.double()) for image in pair] for pair in cut]
    assert result['sr/psnr_y'] == pytest.approx(np.mean([psnr(*pair) for pair in luminance]))
    assert result['sr/ssim_y'] == pytest.approx(np.mean([ssim(*pair) for pair in luminance]))


def test_bicubic_interpolation_is_reported_beside():
    gt = torch.full((3, 24, 24), 100, dtype=torch.uint8)
    result = evaluate(
        [(gt + 1, gt)], inputs=[gt[:, ::2, ::2]], crop_border=2, color='rgb', bicubic=True
    )
    assert set(result) == {
        'sr/psnr_rgb',
        'sr/ssim_rgb',
        'sr/bicubic_psnr_rgb',
        'sr/bicubic_ssim_rgb',
    }
    assert result['sr/psnr_rgb'] == pytest.approx(20 * math.log10(255))
    assert result['sr/bicubic_psnr_rgb'] == math.inf


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(crop_border=-1), 'crop_border must not be negative, got -1'),
        (dict(crop_border=0, color=()), r"color must be of 'rgb' and 'y', got \(\)"),
        (dict(crop_border=0, color=['Y']), r"color must be of 'rgb' and 'y', got \['Y'\]"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SuperResolutionMetric(**arguments)


def test_samples_that_cannot_be_compared_are_refused():
    with pytest.raises(
        ValueError,
        match=r'must have the size of the originals .* got \(3, 20, 23\) and \(3, 20, 24\)',
    ):
        evaluate([(pixels(), pixels(20, 24))], crop_border=0)
    with pytest.raises(ValueError, match='leave 11 x 11 pixels inside crop_border=5'):
        evaluate([(pixels(), pixels())], crop_border=5)
    with pytest.raises(KeyError, match='every sample must have pred_img, got '):
        SuperResolutionMetric(0).process(None, [dict(gt_img=pixels())])
