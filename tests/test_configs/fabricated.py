"""The shipped configs, and what it takes to run one of them on a few random images without a
network.
"""

from __future__ import annotations

import json
from copy import deepcopy
from functools import cache
from itertools import product
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config

import mmwcc  # noqa: F401  (its import lets `mmseg::` and `mmdet::` stand in `_base_`)

CONFIGS = Path(__file__).parents[2] / 'configs'
SIZE, CROP = (96, 72), (64, 64)
IMAGES = 2


def config_files() -> list[str]:
    """Return every config that can be trained, relative to ``configs``."""
    files = (path.relative_to(CONFIGS) for path in CONFIGS.rglob('*.py'))
    return sorted(path.as_posix() for path in files if not {'_base_', 'ladders'} & set(path.parts))


@cache
def _read(name: str) -> Config:
    return Config.fromfile(CONFIGS / name)


def read(name: str) -> Config:
    """Return a config; reading takes half a second, so files are read once."""
    return deepcopy(_read(name))


def drop_pretrained(cfg) -> None:
    """Remove in place whatever would download weights."""
    values = list(cfg.items()) if isinstance(cfg, dict) else list(enumerate(cfg))
    for key, value in values:
        if key == 'pretrained' or (
            key == 'init_cfg' and isinstance(value, dict) and value.get('type') == 'Pretrained'
        ):
            cfg[key] = None
        elif isinstance(value, (dict, list)):
            drop_pretrained(value)


def data_set_type(cfg: Config) -> str:
    """Return the type of the training data set, looking through wrappers."""
    data_set = cfg.train_dataloader.dataset
    while 'dataset' in data_set or 'datasets' in data_set:
        data_set = data_set['dataset'] if 'dataset' in data_set else data_set['datasets'][0]
    return data_set['type']


def shrink(cfg: Config, data_root: Path, work_dir: Path, validate: bool) -> Config:
    """Change a config in place to one training iteration of two small fabricated images, then maybe
    a validation.
    """
    drop_pretrained(cfg.model)
    cfg.load_from = None
    if 'training_stage' in cfg.default_hooks:
        cfg.default_hooks.training_stage.needs_checkpoint = (
            False  # of the stage before, which is not trained here
        )
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = work_dir.name
    cfg.visualizer = dict(type='Visualizer', name=f'visualizer_{work_dir.name}', _scope_='mmengine')
    cfg.env_cfg = dict(cudnn_benchmark=False)
    cfg.default_hooks.pop('visualization', None)
    cfg.default_hooks.checkpoint.update(
        interval=1 if validate else -1, save_last=False, by_epoch=False
    )
    if cfg.train_cfg.get('type') == 'IterBasedTrainLoop':
        cfg.train_cfg.update(max_iters=1, val_interval=1)
    else:
        cfg.train_cfg.update(max_epochs=1, val_interval=1)
    if cfg.model.get('data_preprocessor', {}).get('size'):
        crops = any(transform['type'] == 'RandomCrop' for transform in cfg.train_pipeline)
        cfg.model.data_preprocessor.size = CROP if crops else SIZE[::-1]
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.update(num_workers=0, persistent_workers=False)
        _shrink_data(loader.dataset, data_root)
    cfg.train_dataloader.batch_size = IMAGES
    if validate:
        test_cfg = cfg.model.get('test_cfg', {})
        for part in (test_cfg, test_cfg.get('rcnn', {})):
            if 'score_thr' in part:
                part['score_thr'] = 0.0  # an untrained detector is sure of nothing
        for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
            if 'ann_file' in evaluator:
                evaluator.ann_file = str(
                    data_root / 'coco' / 'annotations' / 'instances_val2017.json'
                )
    else:
        for key in (
            'val_dataloader',
            'val_cfg',
            'val_evaluator',
            'test_dataloader',
            'test_cfg',
            'test_evaluator',
        ):
            cfg.pop(key)
    return cfg


_FOLDERS = {
    'mmwcc.CamVidDataset': 'camvid',
    'CityscapesDataset': 'cityscapes',
    'PascalVOCDataset': 'voc',
    'CocoDataset': 'coco',
    'mmwcc.XMLBoxDataset': 'bccd',
    'mmwcc.CIFAR10': 'cifar10',
    'mmwcc.ImageFolder': 'folder',
    'mmwcc.KITTIRawDataset': 'kitti_raw',
}


def _shrink_data(data_set, data_root: Path) -> None:
    for inner in [data_set['dataset']] if 'dataset' in data_set else data_set.get('datasets', []):
        _shrink_data(inner, data_root)
    if data_set['type'] in _FOLDERS:
        data_set['data_root'] = str(data_root / _FOLDERS[data_set['type']])
    if data_set['type'] == 'mmwcc.SuperResolutionDataset':
        data_set['data_root'] = str(data_root / Path(data_set['data_root']).name)
        for transform in data_set['pipeline']:
            if 'crop_size' in transform:
                transform['crop_size'] = 16
        return  # other scales are those of the networks
    if data_set['type'] in ('mmwcc.SyntheticStreetDataset', 'mmwcc.SyntheticStreetSequence'):
        data_set.update(length=IMAGES, img_scale=SIZE)
    for transform in data_set.get('pipeline', []):
        if 'scale' in transform:
            transform['scale'] = SIZE
        if 'crop_size' in transform and data_set['type'] != 'mmwcc.CIFAR10':  # images of 32x32
            transform['crop_size'] = CROP


def write_data_sets(root: Path) -> Path:
    """Write random images and labels in the layouts of the data sets of all configs."""
    for split in ('train', 'val', 'test'):
        for i in range(IMAGES):
            # CamVid comes as .png and as .jpg; its data set looks which.
            _image(root / f'camvid/img_dir/{split}/{i}.jpg')
            _labels(root / f'camvid/ann_dir/{split}/{i}.png', 11)
            _image(root / f'cityscapes/leftImg8bit/{split}/city/{i}_leftImg8bit.png')
            _labels(root / f'cityscapes/gtFine/{split}/city/{i}_gtFine_labelTrainIds.png', 19)
            _image(root / f'folder/{split}/class{i}/{i}.jpg')
    for split, scale in product(('train', 'valid'), (2, 3, 4)):
        for i in range(IMAGES):
            _image(root / f'DIV2K/DIV2K_{split}_HR/{i}.png')
            _image(root / f'DIV2K/DIV2K_{split}_LR_bicubic/X{scale}/{i}x{scale}.png', scale)
    for split in ('train', 'aug', 'val'):
        names = [f'{split}{i}' for i in range(IMAGES)]
        for name in names:
            _image(root / f'voc/JPEGImages/{name}.jpg')
            _labels(root / f'voc/SegmentationClass{"Aug" if split == "aug" else ""}/{name}.png', 21)
        _text(root / f'voc/ImageSets/Segmentation/{split}.txt', '\n'.join(names))
    for name in ('data_batch_1.bin', 'test_batch.bin'):
        records = _random(root / 'cifar10' / name).integers(0, 256, (IMAGES, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        records.tofile(root / 'cifar10' / name)
    _kitti(root / 'kitti_raw')
    for split in ('train', 'val', 'test'):
        _bccd(root / 'bccd/BCCD', split)
    for split in ('train2017', 'val2017'):
        _text(
            root / f'coco/annotations/instances_{split}.json',
            json.dumps(_coco(root / 'coco' / split)),
        )
    return root


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _random(path: Path) -> np.random.Generator:
    path.parent.mkdir(parents=True, exist_ok=True)
    return np.random.default_rng(sum(map(ord, path.name)))


def _image(path: Path, shrink: int = 1) -> None:
    size = (SIZE[1] // shrink, SIZE[0] // shrink, 3)
    cv2.imwrite(str(path), _random(path).integers(0, 256, size, dtype=np.uint8))


def _labels(path: Path, classes: int) -> None:
    labels = _random(path).integers(0, classes, (SIZE[1], SIZE[0]), dtype=np.uint8)
    labels[:4] = 255
    cv2.imwrite(str(path), labels)


def _bccd(folder: Path, split: str) -> None:
    names = [f'{split}{i}' for i in range(IMAGES)]
    _text(folder / f'ImageSets/Main/{split}.txt', '\n'.join(names))
    for name in names:
        _image(folder / f'JPEGImages/{name}.jpg')
        boxes = ''.join(
            f'<object><name>{kind}</name><bndbox><xmin>{left}</xmin><ymin>10</ymin><xmax>{right}</xmax>'
            '<ymax>50</ymax></bndbox></object>'
            for kind, left, right in (('RBC', 10, 60), ('Platelets', 70, 90), ('WBC', 20, 20))
        )
        _text(
            folder / f'Annotations/{name}.xml',
            f'<annotation><size><width>{SIZE[0]}</width><height>{SIZE[1]}'
            f'</height></size>{boxes}</annotation>',
        )


def _kitti(folder: Path) -> None:
    drive = '2011_09_26/2011_09_26_drive_0001_sync'
    for i in range(IMAGES + 2):
        _image(folder / drive / f'image_02/data/{i:010d}.png')
        path = folder / drive / f'velodyne_points/data/{i:010d}.bin'
        points = _random(path).uniform((5, -2, -1, 0), (50, 2, 1, 1), (200, 4))
        points.astype(np.float32).tofile(path)
    for name in ('eigen_zhou/train', 'eigen/test'):
        _text(
            folder / f'splits/{name}_files.txt',
            '\n'.join(f'{drive} {i + 1} l' for i in range(IMAGES)),
        )
    _text(
        folder / '2011_09_26/calib_cam_to_cam.txt',
        'R_rect_00: 1 0 0 0 1 0 0 0 1\nP_rect_02: 80 0 48 0 0 80 36 0 0 0 1 0',
    )
    _text(folder / '2011_09_26/calib_velo_to_cam.txt', 'R: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 -0.3')


def _coco(folder: Path) -> dict:
    from mmdet.datasets import CocoDataset

    images, boxes = [], []
    for i in range(IMAGES):
        _image(folder / f'{i}.jpg')
        images.append(dict(id=i, file_name=f'{i}.jpg', width=SIZE[0], height=SIZE[1]))
        boxes.append(
            dict(
                id=i + 1, image_id=i, category_id=1 + i, bbox=[10, 10, 50, 40], area=2000, iscrowd=0
            )
        )
    names = CocoDataset.METAINFO['classes']
    return dict(
        images=images,
        annotations=boxes,
        categories=[dict(id=i + 1, name=name) for i, name in enumerate(names)],
    )
