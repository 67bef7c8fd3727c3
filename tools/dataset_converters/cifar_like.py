"""Write 32x32 images in CIFAR-10's own binary format.

    python tools/dataset_converters/cifar_like.py --out-dir data/street_cifar
    python tools/dataset_converters/cifar_like.py --out-dir data/my_cifar --images FOLDER

FOLDER holds FOLDER/CLASS/*.jpg.

The images are crops of synthetic streets, or come from a folder of labelled images. The ten classes
of the streets are sky, building, pole, road, pavement, tree, sign, car, van and pedestrian, equally
often. An image of an object frames one object, and is at most half as wide again as that object. An
image of a surface shows mostly that surface. No street gives images to both training and test.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from mmwcc.datasets import StreetScene, StreetWorld, render
from mmwcc.progress import Progress, track

CLASSES = (
    'sky',
    'building',
    'pole',
    'road',
    'pavement',
    'tree',
    'sign',
    'car',
    'van',
    'pedestrian',
)
SIZE = 32
BATCHES = 5
SCENE = (288, 384)
# Scene label of each class of images, with the share of an image that a surface must cover.
SURFACES = {
    'sky': (0, 0.6),
    'building': (1, 0.8),
    'pole': (2, 0.1),
    'road': (3, 0.8),
    'pavement': (4, 0.6),
    'tree': (5, 0.7),
}
BOXES = ('sign', 'car', 'pedestrian')
CAR_LABEL, CAR_BOX = 7, 1
# Cars are up to 1.75 m high and vans 2.25 m, computed from pixels and depth in metres; heights in
# between are left out.
HIGHEST_CAR, LOWEST_VAN = 1.95, 2.1
SMALLEST_BOX = 12


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description="Write a data set in CIFAR-10's binary format")
    parser.add_argument('-o', '--out-dir', default='data/street_cifar', help='output folder')
    parser.add_argument(
        '--train', type=int, default=4000, help='images to train with; streets only'
    )
    parser.add_argument('--test', type=int, default=2000, help='images to test with; streets only')
    parser.add_argument(
        '--seed', type=int, default=0, help='collection of streets, or order of the folder'
    )
    parser.add_argument(
        '--images', help='folder with one sub-folder of images for each class, instead of streets'
    )
    parser.add_argument(
        '--test-share', type=float, default=0.2, help='share of the folder to test with'
    )
    args = parser.parse_args(argv)
    for name in ('train', 'test'):
        if getattr(args, name) < len(CLASSES) or getattr(args, name) % len(CLASSES):
            parser.error(
                f'--{name} must be a multiple of {len(CLASSES)}, as classes are equally often, got '
                f'{getattr(args, name)}'
            )
    if not 0 < args.test_share < 1:
        parser.error(f'--test-share must be between 0 and 1, got {args.test_share}')
    return args


def cut(image: np.ndarray, centre: tuple[float, float], side: float) -> tuple[slice, slice]:
    """Return the rows and columns of a square of about ``side`` pixels within the image.

    ``centre`` = (x, y) is the centre of the square.
    """
    height, width = image.shape[:2]
    side = int(min(round(side), height, width))
    top = int(np.clip(round(centre[1] - side / 2), 0, height - side))
    left = int(np.clip(round(centre[0] - side / 2), 0, width - side))
    return slice(top, top + side), slice(left, left + side)


def shrink(image: np.ndarray) -> np.ndarray:
    """Return the image at 32x32."""
    smaller = image.shape[0] > SIZE
    return cv2.resize(
        image, (SIZE, SIZE), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    )


def class_of_box(scene: StreetScene, index: int, focal: float) -> str | None:
    """Return the class of a box, or None if it is unsuitable.

    A box is unsuitable if it is too small, cut off, or neither clearly a car nor clearly a van.
    """
    x1, y1, x2, y2 = scene.boxes[index].astype(int)
    height, width = scene.labels.shape
    if max(x2 - x1, y2 - y1) < SMALLEST_BOX or x1 == 0 or y1 == 0 or x2 == width or y2 == height:
        return None
    label = int(scene.box_labels[index])
    if label != CAR_BOX:
        return BOXES[label]
    depth = np.median(scene.depth[y1:y2, x1:x2][scene.labels[y1:y2, x1:x2] == CAR_LABEL])
    metres = (y2 - y1) * depth / (focal * width)
    if metres < HIGHEST_CAR:
        return 'car'
    return 'van' if metres > LOWEST_VAN else None


def images_of_street(collection: int, index: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield at most one image of each class that a street shows, with its class."""
    world = StreetWorld.sample(collection, index)
    scene = render(world, world.viewpoint, SCENE, noise_seed=index)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([collection, index, SIZE])))
    found = set()
    for box in rng.permutation(len(scene.boxes)):
        kind = class_of_box(scene, box, world.viewpoint.focal)
        if kind is not None and kind not in found:
            x1, y1, x2, y2 = scene.boxes[box]
            found.add(kind)
            side = max(x2 - x1, y2 - y1) * rng.uniform(1.1, 1.5)
            yield kind, shrink(scene.image[cut(scene.image, ((x1 + x2) / 2, (y1 + y2) / 2), side)])
    for kind, (label, share) in SURFACES.items():
        rows, columns = np.nonzero(scene.labels == label)
        for _ in range(8 if len(rows) else 0):
            place = rng.integers(len(rows))
            side = rng.uniform(16, 40) if kind == 'pole' else rng.uniform(24, 72)
            window = cut(scene.image, (columns[place], rows[place]), side)
            if (scene.labels[window] == label).mean() >= share:
                yield kind, shrink(scene.image[window])
                break


def street_images(collection: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ``count`` BGR images of streets and their labels in random order.

    All classes are equally frequent.
    """
    missing = dict.fromkeys(CLASSES, count // len(CLASSES))
    images, labels, index = [], [], 0
    progress = Progress('rendering streets', count, 'images')
    while any(missing.values()):
        for kind, image in images_of_street(collection, index):
            if missing[kind]:
                missing[kind] -= 1
                images.append(image)
                labels.append(CLASSES.index(kind))
                progress.step()
        index += 1
    progress.end()
    order = np.random.Generator(np.random.PCG64(collection)).permutation(count)
    return np.stack(images)[order], np.array(labels, np.uint8)[order]


def folder_images(root: Path, test_share: float, seed: int):
    """Read class names and images from one sub-folder for each class.

    Returns:
        The class names, then (images, labels) for training and for testing.

    Raises:
        FileNotFoundError: If there are fewer than two sub-folders, or one of them has fewer than
            two images.
        ValueError: If a file is not an image, or there are more than 256 classes.
    """
    names = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    if len(names) < 2:
        raise FileNotFoundError(
            'cifar_like: --images must hold a sub-folder for each of at least two classes, got '
            f'{names} in {root}. Sort the images into {root}/CLASS/.'
        )
    if len(names) > 256:
        raise ValueError(
            'cifar_like: a label is one byte, so --images must hold at most 256 classes, got '
            f'{len(names)}. Use mmwcc.ImageFolder for so many.'
        )
    rng = np.random.Generator(np.random.PCG64(seed))
    parts = ([], []), ([], [])
    for label, name in enumerate(track(names, 'reading images', 'classes')):
        files = sorted(path for path in (root / name).iterdir() if path.is_file())
        if len(files) < 2:
            raise FileNotFoundError(
                'cifar_like: every class needs an image to train and one to test with, got '
                f'{len(files)} in {root / name}. Add images or remove the folder.'
            )
        tested = max(1, min(len(files) - 1, round(test_share * len(files))))
        for position, file in enumerate(rng.permutation(files)):
            image = cv2.imread(str(file), cv2.IMREAD_COLOR)
            if image is None:
                raise ValueError(
                    f'cifar_like: every file of a class must be an image, got {file}. Remove it.'
                )
            centre = image.shape[1] / 2, image.shape[0] / 2
            images, labels = parts[position < tested]
            images.append(shrink(image[cut(image, centre, max(image.shape))]))
            labels.append(label)
    train, test = ((np.stack(images), np.array(labels, np.uint8)) for images, labels in parts)
    order = rng.permutation(len(train[1]))
    return names, (train[0][order], train[1][order]), test


def write(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write BGR images (n, 32, 32, 3) and labels (n,) as CIFAR-10 records.

    A record is a label, a red, a green and a blue plane.
    """
    planes = images[..., ::-1].transpose(0, 3, 1, 2).reshape(len(labels), -1)
    np.concatenate([labels[:, None], planes], axis=1).tofile(path)


def main(argv: list[str] | None = None) -> None:
    """Write what the command line asks for."""
    args = parse_args(argv)
    if args.images:
        names, train, test = folder_images(Path(args.images), args.test_share, args.seed)
    else:
        # SyntheticStreetDataset numbers the train, val and test splits of a seed in the same way.
        names, train, test = (
            CLASSES,
            street_images(3 * args.seed, args.train),
            street_images(3 * args.seed + 2, args.test),
        )
    out_dir = Path(args.out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    for batch, (images, labels) in enumerate(
        zip(*(np.array_split(part, BATCHES) for part in train), strict=True), 1
    ):
        if len(labels):
            write(out_dir / f'data_batch_{batch}.bin', images, labels)
    write(out_dir / 'test_batch.bin', *test)
    (out_dir / 'batches.meta.txt').write_text('\n'.join(names) + '\n')
    print(
        f'{len(train[1])} images to train and {len(test[1])} to test with, {len(names)} classes, '
        f'in {out_dir}'
    )


if __name__ == '__main__':
    main()
