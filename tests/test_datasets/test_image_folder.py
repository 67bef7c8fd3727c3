import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS

from mmwcc.datasets import ImageFolder


@pytest.fixture
def root(tmp_path):
    for name in (
        'train/dog/2.JPG',
        'train/cat/b/1.png',
        'train/cat/a.jpg',
        'train/cat/notes.txt',
        'train/.x/1.png',
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith('.txt'):
            (tmp_path / name).write_text('no image')
        else:
            cv2.imwrite(str(tmp_path / name), np.full((4, 6, 3), (10, 20, 30), np.uint8))
    return str(tmp_path)


def entries(dataset):
    return [
        (entry['img_path'].split('train/')[1], entry['gt_label'])
        for entry in map(dataset.get_data_info, range(len(dataset)))
    ]


def test_classes_are_sub_folders(root):
    dataset = ImageFolder(data_root=root, data_prefix='train')
    assert dataset.metainfo['classes'] == ('cat', 'dog')
    assert entries(dataset) == [('cat/a.jpg', 0), ('cat/b/1.png', 0), ('dog/2.JPG', 1)]
    assert len(ImageFolder(data_root=f'{root}/train')) == 3


def test_metainfo_orders_and_selects_classes(root):
    dataset = ImageFolder(
        data_root=root, data_prefix='train', metainfo=dict(classes=('dog', 'cat'))
    )
    assert {name.split('/')[0]: label for name, label in entries(dataset)} == dict(dog=0, cat=1)
    dataset = ImageFolder(data_root=root, data_prefix='train', metainfo=dict(classes=('dog',)))
    assert entries(dataset) == [('dog/2.JPG', 0)]


def test_from_a_config_with_a_pipeline(root):
    pytest.importorskip('mmcv')
    dataset = DATASETS.build(
        dict(
            type='mmwcc.ImageFolder',
            data_root=root,
            data_prefix='train',
            pipeline=[dict(type='LoadImageFromFile'), dict(type='mmwcc.PackClsInputs')],
        )
    )
    packed = dataset[1]
    assert packed['inputs'][:, 0, 0].tolist() == [10, 20, 30]
    assert packed['data_samples'].gt_label.tolist() == [0]
    assert packed['data_samples'].img_path.endswith('1.png')


def test_missing_folder(root):
    with pytest.raises(
        FileNotFoundError, match='data_prefix must be an existing folder, got .*/val'
    ):
        ImageFolder(data_root=root, data_prefix='val')


def test_folder_without_classes(tmp_path):
    with pytest.raises(
        FileNotFoundError, match='must hold one sub-folder for each class, got none in'
    ):
        ImageFolder(data_root=str(tmp_path))


def test_class_without_folder(root):
    with pytest.raises(FileNotFoundError, match=r'none called mouse \(1 of 2 are missing\)'):
        ImageFolder(data_root=root, data_prefix='train', metainfo=dict(classes=('cat', 'mouse')))


def test_class_without_images(root):
    with pytest.raises(FileNotFoundError, match=r'must have an image \(.png\), got none in .*dog'):
        ImageFolder(data_root=root, data_prefix='train', extensions=('.png',))
