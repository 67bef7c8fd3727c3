"""Pairs of images: folders, reading, shrinking, crops, flips, packing."""

import cv2
import numpy as np
import pytest
import torch

from mmwcc.datasets.image_pairs import (
    LoadImagePair,
    PackImagePair,
    PairedRandomCrop,
    PairedRandomFlipRotate,
    SuperResolutionDataset,
)
from mmwcc.functional import resize_bicubic


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])
    return str(path)


def test_small_versions_are_made(tmp_path):
    image = noise(13, 18)
    results = LoadImagePair(scale=4)(dict(gt_path=write(tmp_path / 'a.png', image)))
    assert np.array_equal(results['gt'], image[:12, :16])
    small = torch.from_numpy(image[:12, :16].transpose(2, 0, 1).copy())
    assert np.array_equal(results['img'].transpose(2, 0, 1), resize_bicubic(small, (3, 4)).numpy())
    assert results['scale'] == 4


def test_small_versions_are_read(tmp_path):
    gt, img = noise(9, 12), noise(4, 5, seed=1)
    results = LoadImagePair()(
        dict(gt_path=write(tmp_path / 'a.png', gt), img_path=write(tmp_path / 'b.png', img))
    )
    assert np.array_equal(results['img'], img) and np.array_equal(results['gt'], gt[:8, :10])


def test_images_that_do_not_fit_or_cannot_be_read_are_refused(tmp_path):
    gt, img = write(tmp_path / 'a.png', noise(9, 12)), write(tmp_path / 'b.png', noise(5, 5))
    with pytest.raises(
        ValueError,
        match=r'must be 2 times as large as its small version, got \(9, 12\) and \(5, 5\)',
    ):
        LoadImagePair()(dict(gt_path=gt, img_path=img))
    with pytest.raises(
        ValueError, match=r'must be 10 times as large .* got \(9, 12\) and \(0, 1\)'
    ):
        LoadImagePair(10)(dict(gt_path=gt))
    for name, content in (('empty.png', b''), ('text.png', b'not an image')):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            ValueError, match=f'{name} must be an image, got a file that cannot be decoded'
        ):
            LoadImagePair()(dict(gt_path=str(tmp_path / name)))


@pytest.mark.parametrize('scale', [1, 2.0, 0])
def test_scales_that_do_not_exist_are_refused(scale):
    with pytest.raises(ValueError, match='scale must be an integer of at least 2'):
        LoadImagePair(scale)


def test_windows_belong_together():
    img = np.arange(8 * 9).reshape(8, 9, 1).repeat(3, 2)
    gt = img.repeat(2, 0).repeat(2, 1)
    seen = set()
    for _ in range(200):
        results = PairedRandomCrop(7)(dict(img=img, gt=gt, scale=2))
        assert results['img'].shape == (7, 7, 3) and results['gt'].shape == (14, 14, 3)
        assert np.array_equal(results['gt'][::2, ::2], results['img'])
        seen.add(int(results['img'][0, 0, 0]))
    assert seen == {0, 1, 2, 9, 10, 11}  # every place there is


def test_windows_that_do_not_fit_are_refused():
    with pytest.raises(
        ValueError, match=r'crop_size must fit into the small version, got 9 and \(8, 9\)'
    ):
        PairedRandomCrop(9)(dict(img=np.zeros((8, 9, 3)), gt=np.zeros((16, 18, 3)), scale=2))
    with pytest.raises(ValueError, match='crop_size must be at least 1, got 0'):
        PairedRandomCrop(0)


def test_all_eight_flips_and_rotations_of_both():
    img = np.arange(12).reshape(2, 2, 3)
    seen = set()
    for _ in range(200):
        results = PairedRandomFlipRotate()(dict(img=img, gt=img.repeat(2, 0).repeat(2, 1)))
        assert np.array_equal(results['gt'][::2, ::2], results['img'])
        seen.add(tuple(results['img'][..., 0].ravel()))
    assert len(seen) == 8


def test_packing():
    gt, img = noise(4, 6), noise(2, 3)
    packed = PackImagePair()(
        dict(img=img[:, ::-1], gt=gt, scale=2, gt_path='a.png', sample_idx=3, other=1)
    )
    assert packed['inputs'].shape == (3, 2, 3) and packed['inputs'].dtype == torch.uint8
    assert np.array_equal(packed['inputs'].numpy(), img[:, ::-1].transpose(2, 0, 1))
    sample = packed['data_samples']
    assert np.array_equal(sample.gt_img.numpy(), gt.transpose(2, 0, 1))
    assert sample.metainfo == dict(scale=2, gt_path='a.png', sample_idx=3)


def test_steps_print_their_arguments():
    assert [
        repr(step) for step in (LoadImagePair(3), PairedRandomCrop(5), PairedRandomFlipRotate())
    ] == ['LoadImagePair(scale=3)', 'PairedRandomCrop(crop_size=5)', 'PairedRandomFlipRotate()']
    assert repr(PackImagePair(['scale'])) == "PackImagePair(meta_keys=('scale',))"


def test_a_folder_of_originals(tmp_path):
    for name in ('b.PNG', 'a.jpg', 'notes.txt', 'sub/c.png'):
        write(tmp_path / 'hr' / name, noise(8, 8)) if 'txt' not in name else (
            tmp_path / 'hr' / name
        ).write_text('')
    data = SuperResolutionDataset(
        data_root=str(tmp_path),
        data_prefix=dict(gt='hr'),
        pipeline=[dict(type='mmwcc.LoadImagePair'), dict(type='mmwcc.PackImagePair')],
    )
    assert [data.get_data_info(i)['gt_path'] for i in range(len(data))] == [
        str(tmp_path / 'hr' / name) for name in ('a.jpg', 'b.PNG')
    ]
    assert data[1]['inputs'].shape == (3, 4, 4)
    assert len(SuperResolutionDataset(data_root=str(tmp_path / 'hr'))) == 2


def test_pairs_by_the_pattern_of_their_names(tmp_path):
    for stem in ('0001', '0002'):
        write(tmp_path / f'hr/{stem}.png', noise(8, 8))
        write(tmp_path / f'lr/X2/{stem}x2.png', noise(4, 4))
    prefix = dict(gt='hr', img='lr/X2')
    data = SuperResolutionDataset(data_root=str(tmp_path), data_prefix=prefix, img_tmpl='{}x2')
    assert data.get_data_info(1)['img_path'] == str(tmp_path / 'lr/X2/0002x2.png')
    with pytest.raises(FileNotFoundError, match=r'none called 0001 in .*X2 \(2 of 2 are missing\)'):
        SuperResolutionDataset(data_root=str(tmp_path), data_prefix=prefix)


def test_folders_that_are_missing_or_empty_are_refused(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"data_prefix\['gt'\] must be an existing folder, got .*none"
    ):
        SuperResolutionDataset(data_root=str(tmp_path), data_prefix=dict(gt='none'))
    with pytest.raises(FileNotFoundError, match='must hold images .* got none in'):
        SuperResolutionDataset(data_root=str(tmp_path))
    with pytest.raises(ValueError, match="data_prefix must have gt, got {'img': 'lr'}"):
        SuperResolutionDataset(data_prefix=dict(img='lr'))
