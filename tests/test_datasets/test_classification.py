"""Steps of classification pipelines."""

import numpy as np
import pytest
import torch

from mmwcc.datasets import GaussianNoise, PackClsInputs, PadRandomCrop


def test_crops_are_windows_of_the_padded_image():
    image = np.arange(1, 33, dtype=np.uint8).reshape(4, 8, 1).repeat(3, axis=2)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), constant_values=7)
    step, seen = PadRandomCrop((3, 5), padding=2, pad_value=7), set()
    for _ in range(2000):  # of 48 windows; all but never is one of them missed
        results = step(dict(img=image))
        assert results['img_shape'] == (3, 5)
        found = [
            (top, left)
            for top in range(6)
            for left in range(8)
            if np.array_equal(padded[top : top + 3, left : left + 5], results['img'])
        ]
        assert found
        seen.update(found)
    assert {(0, 0), (5, 7)} <= seen and len(seen) == 48  # every window comes up


def test_crop_refuses_what_does_not_fit():
    with pytest.raises(
        ValueError, match=r'must fit into the padded image, got \(9, 9\) and \(8, 8\)'
    ):
        PadRandomCrop(9, padding=2)(dict(img=np.zeros((4, 4, 3), np.uint8)))
    with pytest.raises(
        ValueError, match='crop_size must be positive and padding not negative, got 0 and 0'
    ):
        PadRandomCrop(0)


def noisy(variance, index=0, seed=0):
    image = np.full((64, 64, 3), 128, np.uint8)
    return GaussianNoise(variance, seed)(dict(img=image, sample_idx=index))['img']


def test_noise_has_the_variance_of_pixels_from_0_to_1():
    difference = (noisy(0.01).astype(float) - 128) / 255
    # 12,288 samples: the standard error of the variance is 1.3 %, that of the mean 0.0009.
    assert abs(difference.mean()) < 0.004
    assert difference.var() == pytest.approx(0.01, rel=0.06)


def test_noise_belongs_to_the_image():
    np.testing.assert_array_equal(noisy(0.05, index=3), noisy(0.05, index=3))
    assert not np.array_equal(noisy(0.05, index=3), noisy(0.05, index=4))
    assert not np.array_equal(noisy(0.05, index=3), noisy(0.05, index=3, seed=1))


def test_noise_is_clipped_and_can_be_none():
    strong = GaussianNoise(1.0)(dict(img=np.full((64, 64, 3), 250, np.uint8)))['img']
    assert strong.dtype == np.uint8 and strong.max() == 255 and 0.4 < (strong == 255).mean() < 0.6
    assert (noisy(0.0) == 128).all()
    with pytest.raises(ValueError, match='variance must not be negative, got -0.1'):
        GaussianNoise(-0.1)


def test_packing():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    packed = PackClsInputs()(dict(img=image, gt_label=3, img_path='a.png', other=1))
    assert torch.equal(packed['inputs'], torch.from_numpy(image).permute(2, 0, 1))
    assert packed['data_samples'].gt_label.tolist() == [3]
    assert packed['data_samples'].metainfo == dict(img_path='a.png')
    assert 'gt_label' not in PackClsInputs()(dict(img=image[..., 0]))['data_samples']
    with pytest.raises(KeyError, match='the entry must have img'):
        PackClsInputs()(dict(gt_label=3))
