"""CIFAR-10 in both original formats, written here byte by byte."""

import os
import pickle

import numpy as np
import pytest
from mmengine.registry import DATASETS

from mmwcc.datasets import CIFAR10

RED, GREEN, BLUE = 200, 100, 50


def records(*labels) -> np.ndarray:
    """Return images of one colour whose first pixel's red is the label."""
    content = np.empty((len(labels), 3073), np.uint8)
    content[:, 0] = labels
    content[:, 1:] = np.repeat([RED, GREEN, BLUE], 1024)
    content[:, 1] = labels
    return content


@pytest.fixture
def binary(tmp_path):
    records(3, 9).tofile(tmp_path / 'data_batch_1.bin')
    records(0).tofile(tmp_path / 'data_batch_2.bin')
    records(5).tofile(tmp_path / 'test_batch.bin')
    return tmp_path


def pickled(folder, protocol=2):
    folder.mkdir(parents=True, exist_ok=True)
    for name, labels in (('data_batch_1', (3, 9)), ('data_batch_2', (0,)), ('test_batch', (5,))):
        data = dict(
            data=records(*labels)[:, 1:].copy(), labels=list(labels), filenames=['a'] * len(labels)
        )
        with (folder / name).open('wb') as stream:
            pickle.dump(data, stream, protocol=protocol)
    return folder


def check(dataset):
    assert [entry['gt_label'] for entry in map(dataset.get_data_info, range(len(dataset)))] == [
        3,
        9,
        0,
    ]
    image = dataset.get_data_info(1)['img']
    assert (image.shape, image.dtype) == ((32, 32, 3), np.uint8)
    assert image[0, 0].tolist() == [9, GREEN, BLUE] and image[31, 31].tolist() == [RED, GREEN, BLUE]


def test_binary(binary):
    check(CIFAR10(str(binary)))
    test = CIFAR10(str(binary), split='test')
    assert len(test) == 1 and test.metainfo['classes'][test.get_data_info(0)['gt_label']] == 'dog'


@pytest.mark.parametrize('protocol', [2, 4])
def test_pickles_in_the_folder_of_the_archive(tmp_path, protocol):
    pickled(tmp_path / 'cifar-10-batches-py', protocol)
    check(CIFAR10(str(tmp_path)))


def test_from_a_config_with_a_pipeline(binary):
    steps = [
        dict(type='mmwcc.PadRandomCrop', crop_size=32, padding=4),
        dict(type='mmwcc.PackClsInputs'),
    ]
    dataset = DATASETS.build(dict(type='mmwcc.CIFAR10', data_root=str(binary), pipeline=steps))
    packed = dataset[1]
    assert packed['inputs'].shape == (3, 32, 32) and packed['data_samples'].gt_label.tolist() == [9]
    assert packed['data_samples'].sample_idx == 1


def test_class_names_come_from_the_files_unless_given(binary):
    (binary / 'batches.meta.txt').write_text('\n'.join('abcdefghij') + '\n\n')
    assert CIFAR10(str(binary)).metainfo['classes'] == tuple('abcdefghij')
    assert CIFAR10(str(binary), metainfo=dict(classes=tuple('klmnopqrst'))).metainfo[
        'classes'
    ] == tuple('klmnopqrst')
    assert CIFAR10.METAINFO['classes'][0] == 'airplane'


def test_class_names_of_pickles(tmp_path):
    with (pickled(tmp_path) / 'batches.meta').open('wb') as stream:
        pickle.dump(dict(label_names=list('abcdefghij')), stream)
    assert CIFAR10(str(tmp_path)).metainfo['classes'] == tuple('abcdefghij')


def test_missing_files(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r'must hold test_batch.bin or the pickle test_batch, got neither in',
    ):
        CIFAR10(str(tmp_path), split='test')


def test_unknown_split(tmp_path):
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'val'"):
        CIFAR10(str(tmp_path), split='val')


def test_truncated_file(binary):
    file = binary / 'data_batch_2.bin'
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(
        ValueError, match='records of 3,073 bytes, got 3,072 bytes in .*data_batch_2.bin'
    ):
        CIFAR10(str(binary))


def test_labels_beyond_the_classes(binary):
    records(10).tofile(binary / 'data_batch_3.bin')
    with pytest.raises(
        ValueError, match=r'labels must be in \[0, 9\] for 10 classes, got 10 to 10 in .*_3.bin'
    ):
        CIFAR10(str(binary))


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ([1, 2], 'must be a dict with data and labels, got list'),
        (
            dict(data=np.zeros((2, 3072), np.uint8), labels=[0]),
            r'the shape \(1, 3072\) for its labels, got \(2, 3072\)',
        ),
    ],
)
def test_other_pickles(tmp_path, content, message):
    (tmp_path / 'test_batch').write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=message):
        CIFAR10(str(tmp_path), split='test')


def test_pickles_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'made'),)

    (tmp_path / 'test_batch').write_bytes(pickle.dumps(Evil()))
    with pytest.raises(
        pickle.UnpicklingError,
        match='must hold arrays and plain data only, got posix.mkdir|nt.mkdir',
    ):
        CIFAR10(str(tmp_path), split='test')
    assert not (tmp_path / 'made').exists()
