import importlib.util
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmwcc.datasets import CamVidDataset

TOOL = Path(__file__).parents[2] / 'tools' / 'dataset_converters' / 'camvid.py'
spec = importlib.util.spec_from_file_location('camvid_converter', TOOL)
converter = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = converter  # for the pickling of --nproc
spec.loader.exec_module(converter)

FRAMES = {'0001TP_006690': 'train', '0016E5_07961': 'val', 'Seq05VD_f00030': 'test'}


def write_segnet(root, ids):
    for split in ('train', 'val', 'test'):
        for folder in (split, f'{split}annot'):
            (root / folder).mkdir(parents=True)
        cv2.imwrite(str(root / split / f'{split}_0.png'), np.full((4, 6, 3), 50, np.uint8))
        cv2.imwrite(str(root / f'{split}annot' / f'{split}_0.png'), ids)


def write_original(root, rgb, frames=FRAMES):
    images, labels = root / '701_StillsRaw_full', root / 'LabeledApproved_full'
    images.mkdir(parents=True)
    labels.mkdir()
    for name in frames:
        cv2.imwrite(str(images / f'{name}.png'), np.full((*rgb.shape[:2], 3), 50, np.uint8))
        cv2.imwrite(str(labels / f'{name}_L.png'), rgb[..., ::-1])


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_segnet_layout(tmp_path):
    ids = np.arange(24, dtype=np.uint8).reshape(4, 6) % 12
    write_segnet(tmp_path / 'in', ids)
    converter.main([str(tmp_path / 'in'), '-o', str(tmp_path / 'out')])
    expected = np.where(ids == 11, 255, ids)
    for split in ('train', 'val', 'test'):
        np.testing.assert_array_equal(
            read(tmp_path / 'out/ann_dir' / split / f'{split}_0.png'), expected
        )
        dataset = CamVidDataset(
            data_root=str(tmp_path / 'out'),
            data_prefix=dict(img_path=f'img_dir/{split}', seg_map_path=f'ann_dir/{split}'),
        )
        assert len(dataset) == 1


def test_original_layout_and_its_split(tmp_path):
    palette = CamVidDataset.METAINFO['palette']
    colors = [tuple(c) if tuple(c) != (60, 40, 222) else (0, 0, 192) for c in palette] + [(0, 0, 0)]
    write_original(tmp_path / 'in', np.array(colors, np.uint8).reshape(2, 6, 3))
    converter.main([str(tmp_path / 'in'), '-o', str(tmp_path / 'out'), '--nproc', '2'])
    expected = np.array([*range(11), 255]).reshape(2, 6)
    for name, split in FRAMES.items():
        np.testing.assert_array_equal(
            read(tmp_path / 'out/ann_dir' / split / f'{name}.png'), expected
        )
        assert (tmp_path / 'out/img_dir' / split / f'{name}.png').is_file()


def test_all_32_colours_are_known_once():
    colors = [color for group in converter.COLORS.values() for color in group]
    assert len(colors) == len(set(colors)) == 32
    assert sorted(converter.COLORS) == [*range(11), 255]


def test_scale_keeps_label_ids(tmp_path):
    ids = np.repeat(np.repeat(np.array([[0, 10], [11, 3]], np.uint8), 4, 0), 4, 1)
    write_segnet(tmp_path / 'in', ids)
    converter.main([str(tmp_path / 'in'), '-o', str(tmp_path / 'out'), '--scale', '4', '2'])
    np.testing.assert_array_equal(
        read(tmp_path / 'out/ann_dir/val/val_0.png'), [[0, 0, 10, 10], [255, 255, 3, 3]]
    )
    assert read(tmp_path / 'out/img_dir/val/val_0.png').shape == (2, 4, 3)


@pytest.mark.parametrize(
    'name, split',
    [
        ('0001TP_008520', 'train'),
        ('0001TP_008550', 'test'),
        ('0006R0_f03930', 'train'),
        ('0016E5_07920', 'train'),
        ('0016E5_07959', 'val'),
        ('0016E5_08159', 'val'),
        ('0016E5_08190', 'train'),
        ('Seq05VD_f05100', 'test'),
    ],
)
def test_split_by_sequence(name, split):
    assert converter.segnet_split(name) == split


def test_unknown_frame_needs_a_split_dir(tmp_path):
    write_original(tmp_path / 'in', np.zeros((2, 6, 3), np.uint8), ['mine_1', 'mine_2', 'mine_3'])
    with pytest.raises(ValueError, match="got 'mine_1'.*--split-dir"):
        converter.main([str(tmp_path / 'in'), '-o', str(tmp_path / 'out')])
    lists = tmp_path / 'lists'
    lists.mkdir()
    for split, name in zip(
        ('train', 'val', 'test'), ('mine_3', 'mine_1.png', 'mine_2'), strict=True
    ):
        (lists / f'{split}.txt').write_text(f'{name}\n')
    converter.main([str(tmp_path / 'in'), '-o', str(tmp_path / 'out'), '--split-dir', str(lists)])
    assert (tmp_path / 'out/ann_dir/val/mine_1.png').is_file()
    (lists / 'val.txt').write_text('mine_9\n')
    with pytest.raises(ValueError, match='lists mine_9'):
        converter.main(
            [str(tmp_path / 'in'), '-o', str(tmp_path / 'out'), '--split-dir', str(lists)]
        )
    (lists / 'val.txt').unlink()
    with pytest.raises(FileNotFoundError, match='val.txt is missing'):
        converter.main(
            [str(tmp_path / 'in'), '-o', str(tmp_path / 'out'), '--split-dir', str(lists)]
        )


def test_unknown_ids_and_colours_are_refused(tmp_path):
    write_segnet(tmp_path / 'ids', np.full((4, 6), 12, np.uint8))
    with pytest.raises(ValueError, match='24 pixels that are neither'):
        converter.main([str(tmp_path / 'ids'), '-o', str(tmp_path / 'out')])
    write_original(tmp_path / 'colors', np.full((2, 6, 3), 7, np.uint8))
    with pytest.raises(ValueError, match='12 pixels that are neither'):
        converter.main([str(tmp_path / 'colors'), '-o', str(tmp_path / 'out')])


def test_missing_parts_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='neither trainannot .* nor 701_StillsRaw_full'):
        converter.main([str(tmp_path), '-o', str(tmp_path / 'out')])
    write_segnet(tmp_path / 'in', np.zeros((4, 6), np.uint8))
    (tmp_path / 'in/valannot/val_0.png').unlink()
    with pytest.raises(ValueError, match=r"without partner: \['val_0'\]"):
        converter.main([str(tmp_path / 'in'), '-o', str(tmp_path / 'out')])
    with pytest.raises(ValueError, match='--split-dir is for the original layout'):
        converter.main(
            [str(tmp_path / 'in'), '-o', str(tmp_path / 'out'), '--split-dir', str(tmp_path)]
        )
