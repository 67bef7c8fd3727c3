"""tools/dataset_converters/cifar_like.py: crops of synthetic streets and folders of images in
CIFAR-10's format.
"""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmwcc.datasets import CIFAR10, Camera, StreetScene

TOOL = Path(__file__).parents[2] / 'tools' / 'dataset_converters' / 'cifar_like.py'
spec = importlib.util.spec_from_file_location('cifar_like', TOOL)
converter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(converter)


def read(root, split):
    data = CIFAR10(data_root=str(root), split=split)
    entries = [data.get_data_info(i) for i in range(len(data))]
    return (
        data,
        np.stack([entry['img'] for entry in entries]),
        np.array([entry['gt_label'] for entry in entries]),
    )


def test_streets(tmp_path, capsys):
    for name, seed in (('one', 0), ('same', 0), ('other', 1)):
        converter.main(
            ['-o', str(tmp_path / name), '--train', '20', '--test', '10', '--seed', str(seed)]
        )
    assert '20 images to train and 10 to test with, 10 classes' in capsys.readouterr().out
    data, images, labels = read(tmp_path / 'one', 'train')
    assert data.metainfo['classes'] == converter.CLASSES
    assert images.shape == (20, 32, 32, 3) and images.dtype == np.uint8
    assert np.bincount(labels).tolist() == [2] * 10
    assert np.bincount(read(tmp_path / 'one', 'test')[2]).tolist() == [1] * 10
    assert not np.array_equal(np.sort(labels), labels), 'training batches are in random order'
    assert np.array_equal(read(tmp_path / 'same', 'train')[1], images)
    assert not np.array_equal(read(tmp_path / 'other', 'train')[1], images)
    # Trees are greener than the road, which is darker than the sky.
    sky, road, tree = (
        images[labels == converter.CLASSES.index(name)].reshape(-1, 3).mean(0)
        for name in ('sky', 'road', 'tree')
    )
    assert sky.sum() > road.sum()
    assert tree[1] / tree.sum() > road[1] / road.sum()


@pytest.mark.parametrize('metres, expected', [(1.5, 'car'), (2.25, 'van'), (2.0, None)])
def test_vans_are_cars_of_a_certain_height(metres, expected):
    focal, depth, height = 1.0, 10.0, 40
    labels = np.full(
        (96, int(height * depth / metres / focal)), 7, np.uint8
    )  # so wide that 40 pixels are `metres`
    scene = StreetScene(
        np.zeros((*labels.shape, 3), np.uint8),
        labels,
        np.full(labels.shape, depth, np.float32),
        np.float32([[5, 10, 45, 50]]),
        np.array([1]),
    )
    assert converter.class_of_box(scene, 0, Camera((0.0, 0.0, 1.5), focal=focal).focal) == expected


@pytest.mark.parametrize(
    'box, expected',
    [
        ([5, 10, 20, 40], 'pedestrian'),
        ([5, 10, 15, 21], None),
        ([0, 10, 20, 40], None),
        ([5, 10, 20, 96], None),
    ],
)
def test_small_boxes_and_those_at_the_border_are_left_out(box, expected):
    labels = np.full((96, 128), 8, np.uint8)
    scene = StreetScene(
        np.zeros((96, 128, 3), np.uint8),
        labels,
        np.ones(labels.shape, np.float32),
        np.float32([box]),
        np.array([2]),
    )
    assert converter.class_of_box(scene, 0, 0.85) == expected


def test_windows_stay_inside():
    image = np.zeros((40, 60, 3), np.uint8)
    for centre, side in (((0, 0), 20), ((59, 39), 33), ((30, 20), 100)):
        rows, columns = converter.cut(image, centre, side)
        window = image[rows, columns]
        assert window.shape[0] == window.shape[1] == min(side, 40)


def test_folder(tmp_path):
    for name, color in (('blue', (255, 0, 0)), ('red', (0, 0, 255))):
        (tmp_path / 'in' / name).mkdir(parents=True)
        for i in range(5):
            cv2.imwrite(
                str(tmp_path / 'in' / name / f'{i}.png'), np.full((40 + i, 64, 3), color, np.uint8)
            )
    converter.main(
        ['--images', str(tmp_path / 'in'), '-o', str(tmp_path / 'out'), '--test-share', '0.4']
    )
    for split, count in (('train', 6), ('test', 4)):
        data, images, labels = read(tmp_path / 'out', split)
        assert data.metainfo['classes'] == ('blue', 'red')
        assert np.bincount(labels).tolist() == [count // 2] * 2
        assert (images[labels == 0] == (0, 0, 255)).all() and (
            images[labels == 1] == (255, 0, 0)
        ).all()  # RGB


@pytest.mark.parametrize(
    'files, error, message',
    [
        ({}, FileNotFoundError, 'a sub-folder for each of at least two classes, got'),
        (
            {'a/0.png': b'', 'b/0.png': b''},
            FileNotFoundError,
            'an image to train and one to test with, got 1',
        ),
        (
            {f'{k}/{i}.png': b'no' for k in 'ab' for i in range(2)},
            ValueError,
            'every file of a class must be an image',
        ),
    ],
)
def test_bad_folders(tmp_path, files, error, message):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        converter.main(['--images', str(tmp_path), '-o', str(tmp_path / 'out')])


@pytest.mark.parametrize('arguments', [['--train', '15'], ['--test', '0'], ['--test-share', '1.5']])
def test_bad_options(arguments, capsys):
    with pytest.raises(SystemExit):
        converter.main(arguments)
    assert arguments[0] in capsys.readouterr().err
