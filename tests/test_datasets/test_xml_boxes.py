"""Boxes in Pascal VOC's format, and what is said about files that are not."""

import pytest

pytest.importorskip('mmdet', exc_type=ImportError)

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from mmengine.registry import DATASETS, init_default_scope  # noqa: E402

OBJECT = (
    '<object><name>{}</name><bndbox><xmin>3</xmin><ymin>5</ymin><xmax>21</xmax><ymax>17</ymax></bndbox>'
    '</object>'
)


@pytest.fixture
def root(tmp_path):
    """Two images, of which the second has a box of a class that nobody asks for."""
    for folder in ('ImageSets/Main', 'Annotations', 'JPEGImages'):
        (tmp_path / folder).mkdir(parents=True)
    for name, classes in (('a', ['RBC', 'WBC']), ('b', ['WBC', 'Dust'])):
        cv2.imwrite(str(tmp_path / f'JPEGImages/{name}.jpg'), np.zeros((24, 32, 3), np.uint8))
        annotate(tmp_path, name, classes)
    (tmp_path / 'ImageSets/Main/train.txt').write_text('a\nb\n')
    return tmp_path


def annotate(root, name, classes, size='<size><width>32</width><height>24</height></size>'):
    boxes = ''.join(OBJECT.format(kind) for kind in classes)
    (root / f'Annotations/{name}.xml').write_text(f'<annotation>{size}{boxes}</annotation>')


def build(root, classes=('RBC', 'WBC'), **changes):
    init_default_scope('mmdet')
    metainfo = dict(classes=classes) if classes else {}
    return DATASETS.build(
        dict(
            type='mmwcc.XMLBoxDataset',
            data_root=str(root),
            ann_file='ImageSets/Main/train.txt',
            data_prefix=dict(sub_data_root=''),
            metainfo=metainfo,
            **changes,
        )
    )


def test_reads_boxes(root):
    data = build(root)
    assert len(data) == 2 and data.metainfo['classes'] == ('RBC', 'WBC')
    first, second = (data.get_data_info(number)['instances'] for number in (0, 1))
    assert [box['bbox_label'] for box in first] == [0, 1] and first[0]['bbox'] == [2, 4, 20, 16]
    assert [box['bbox_label'] for box in second] == [1]


def test_images_without_boxes_are_kept(root):
    annotate(root, 'a', [])
    annotate(root, 'b', [])
    assert len(build(root)) == 2


@pytest.mark.parametrize(
    ('file', 'rule'),
    [
        ('ImageSets/Main/train.txt', 'ann_file must be a list of names'),
        ('Annotations/b.xml', r'every name of .*train.txt must have an annotation'),
        ('JPEGImages/b.jpg', r'every name of .*train.txt must have an image'),
    ],
)
def test_missing_files(root, file, rule):
    (root / file).unlink()
    with pytest.raises(
        FileNotFoundError,
        match=rf'XMLBoxDataset: {rule}, and .*{file} does not exist. Lay the data',
    ):
        build(root)


@pytest.mark.parametrize(
    'text',
    [
        '<annotation><size>',
        '<annotation><size><width>32</width></size></annotation>',
        '<annotation><size><width>wide</width><height>24</height></size></annotation>',
        '<annotation><size><width>32</width><height>24</height></size><object><name>RBC</name></object></annotation>',
        '<annotation><size><width>32</width><height>24</height></size><object></object></annotation>',
    ],
)
def test_malformed_annotations(root, text):
    (root / 'Annotations/b.xml').write_text(text)
    with pytest.raises(
        ValueError, match=r'XMLBoxDataset: an annotation must have <size> and, .* got .*b\.xml'
    ):
        build(root)


def test_empty_list(root):
    (root / 'ImageSets/Main/train.txt').write_text('')
    with pytest.raises(
        ValueError, match=r'XMLBoxDataset: ann_file must have a name in each line, got .*train\.txt'
    ):
        build(root)


def test_classes_must_be_known(root):
    with pytest.raises(
        ValueError, match=r'classes must be names in the annotations, got .* Dust, RBC, WBC'
    ):
        build(root, classes=('rbc', 'wbc'))
    with pytest.raises(ValueError, match='XMLBoxDataset: metainfo must have classes, got none'):
        build(root, classes=None)
