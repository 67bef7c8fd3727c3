import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS

from mmwcc.datasets import CamVidDataset

PREFIX = dict(img_path='img_dir/train', seg_map_path='ann_dir/train')


def write(root, names=('a', 'b', 'c'), labels=None, suffix='.png'):
    for kind in PREFIX.values():
        (root / kind).mkdir(parents=True)
    for name in names:
        cv2.imwrite(
            str(root / 'img_dir/train' / f'{name}{suffix}'), np.full((6, 8, 3), 90, np.uint8)
        )
    for i, name in enumerate(names if labels is None else labels):
        cv2.imwrite(str(root / 'ann_dir/train' / f'{name}.png'), np.full((6, 8), i, np.uint8))
    return str(root)


def make(root, **kwargs):
    return CamVidDataset(data_root=root, data_prefix=dict(PREFIX), **kwargs)


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_reads_images_of_either_suffix(tmp_path, suffix):
    steps = [dict(type='mmseg.LoadImageFromFile'), dict(type='mmseg.LoadAnnotations')]
    root = write(tmp_path, suffix=suffix)
    dataset = DATASETS.build(
        dict(type='mmwcc.CamVidDataset', data_root=root, data_prefix=dict(PREFIX), pipeline=steps)
    )
    assert len(dataset) == 3
    results = dataset[1]
    assert results['img'].shape == (6, 8, 3) and results['img_path'].endswith(f'b{suffix}')
    np.testing.assert_array_equal(results['gt_seg_map'], np.ones((6, 8)))


def test_has_eleven_classes_with_one_colour_each():
    info = CamVidDataset.METAINFO
    assert len(info['classes']) == len({tuple(c) for c in info['palette']}) == 11
    assert info['classes'][3] == 'road' and info['classes'][8] == 'car'


def test_ann_file_selects_images(tmp_path):
    root = write(tmp_path)
    (tmp_path / 'few.txt').write_text('a\nc\n')
    assert [e['img_path'][-5:] for e in make(root, ann_file='few.txt').load_data_list()] == [
        'a.png',
        'c.png',
    ]


def test_images_alone_are_enough_to_predict(tmp_path):
    root = write(tmp_path)
    dataset = CamVidDataset(
        data_root=root, data_prefix=dict(img_path='img_dir/train'), test_mode=True
    )
    assert len(dataset) == 3 and 'seg_map_path' not in dataset.get_data_info(0)


def test_missing_folder_says_how_to_get_the_data(tmp_path):
    with pytest.raises(
        FileNotFoundError, match='CamVidDataset: img_path .*tools/dataset_converters/camvid.py'
    ):
        make(str(tmp_path / 'nowhere'))


def test_missing_label_folder_is_named(tmp_path):
    (tmp_path / 'img_dir/train').mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match='seg_map_path must be an existing folder'):
        make(str(tmp_path))


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match='must hold images ending in .png'):
        make(write(tmp_path, names=()))


def test_wrong_suffix_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match='must hold images ending in .jpg'):
        make(write(tmp_path), img_suffix='.jpg')


def test_mixed_suffixes_need_a_choice(tmp_path):
    root = write(tmp_path)
    cv2.imwrite(str(tmp_path / 'img_dir/train/d.jpg'), np.zeros((6, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"img_suffix must be given .*\['.jpg', '.png'\]"):
        make(root)
    assert len(make(root, img_suffix='.png')) == 3


def test_unmatched_files_are_listed_on_both_sides(tmp_path):
    root = write(
        tmp_path, names=[f'p{i}' for i in range(8)] + ['both'], labels=['both', 'only_label']
    )
    with pytest.raises(ValueError, match='p0, p1, p2, p3, p4 and 3 more; .*only_label') as caught:
        make(root)
    assert 'p5' not in str(caught.value) and 'both' not in str(caught.value)
