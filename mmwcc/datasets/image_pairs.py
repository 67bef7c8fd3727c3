"""Pairs of small and original images, and the transforms that prepare them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmengine import fileio
from mmengine.dataset import BaseDataset
from mmengine.structures import BaseDataElement

from mmwcc.functional import resize_bicubic
from mmwcc.registry import DATASETS, TRANSFORMS

__all__ = [
    'LoadImagePair',
    'PackImagePair',
    'PairedRandomCrop',
    'PairedRandomFlipRotate',
    'SuperResolutionDataset',
]


@DATASETS.register_module()
class SuperResolutionDataset(BaseDataset):
    """Read a folder of original images and, if there is one, the folder of their small versions.

    Args:
        data_root: Folder of the dataset. Defaults to ''.
        data_prefix: Folders below data_root: ``gt`` of the originals and, optionally, ``img`` of
            the small versions. Without ``img``, :class:`LoadImagePair` makes the small versions.
            Defaults to ``dict(gt='')``.
        img_tmpl: Template that turns the name of an original into that of its small version, both
            without file extension. Defaults to '{}'.
        extensions: File extensions of images, in upper or lower case. Defaults to the usual ones.
        **kwargs: As for ``mmengine.dataset.BaseDataset``: ``pipeline``, ``indices``, ``test_mode``,
            ….

    Raises:
        ValueError: If data_prefix has no gt.
        FileNotFoundError: If a folder is missing.
        FileNotFoundError: If there is no original.
        FileNotFoundError: If an original has no small version.

    Example:
        ``SuperResolutionDataset(data_root='data/DIV2K', img_tmpl='{}x2',
        data_prefix=dict(gt='DIV2K_train_HR', img='DIV2K_train_LR_bicubic/X2'))`` pairs
        ``DIV2K_train_HR/0001.png`` with ``DIV2K_train_LR_bicubic/X2/0001x2.png``.
    """

    EXTENSIONS = ('.png', '.jpg', '.jpeg', '.bmp', '.ppm', '.tif', '.tiff', '.webp')

    def __init__(
        self,
        data_root: str = '',
        data_prefix: dict | None = None,
        img_tmpl: str = '{}',
        extensions: Sequence[str] = EXTENSIONS,
        **kwargs,
    ) -> None:
        prefix = dict(gt='') if data_prefix is None else data_prefix
        if 'gt' not in prefix:
            raise ValueError(
                f'SuperResolutionDataset: data_prefix must have gt, got {prefix}. Use '
                "dict(gt='HR') for "
                'the folder of the originals.'
            )
        self.img_tmpl = img_tmpl
        self.extensions = tuple(extension.lower() for extension in extensions)
        super().__init__(data_root=data_root, data_prefix=prefix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return one entry for each image.

        It has ``gt_path`` and, if there is a folder of small versions, ``img_path``.
        """
        originals = self._images('gt')
        if not originals:
            raise FileNotFoundError(
                'SuperResolutionDataset: the folder of the originals must hold images '
                f'({", ".join(self.extensions)}), got none in {self.data_prefix["gt"]}.'
            )
        if 'img' not in self.data_prefix:
            return [dict(gt_path=path) for path in originals.values()]
        small = self._images('img')
        missing = [stem for stem in originals if self.img_tmpl.format(stem) not in small]
        if missing:
            raise FileNotFoundError(
                'SuperResolutionDataset: every original must have a small version, got none '
                f'called {self.img_tmpl.format(missing[0])} in {self.data_prefix["img"]} '
                f'({len(missing)} of {len(originals)} '
                "are missing). Set img_tmpl to the pattern of their names, such as '{}x2'."
            )
        return [
            dict(gt_path=path, img_path=small[self.img_tmpl.format(stem)])
            for stem, path in originals.items()
        ]

    def _images(self, key: str) -> dict[str, str]:
        """Map file names without extension to paths."""
        folder = self.data_prefix[key] or self.data_root or '.'
        if not fileio.isdir(folder):
            raise FileNotFoundError(
                f'SuperResolutionDataset: data_prefix[{key!r}] must be an existing folder, got '
                f'{folder}. Set data_root and data_prefix to where the images are.'
            )
        names = sorted(
            name
            for name in fileio.list_dir_or_file(folder, list_dir=False)
            if name.lower().endswith(self.extensions)
        )
        return {name.rpartition('.')[0]: fileio.join_path(folder, name) for name in names}


def _read(path: str) -> np.ndarray:
    """Return the pixels of a file, (H, W, 3) uint8 in RGB order."""
    import cv2

    content = np.frombuffer(fileio.get(path), np.uint8)
    image = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    if image is None:
        raise ValueError(
            f'LoadImagePair: {path} must be an image, got a file that cannot be decoded. Copy it '
            'again.'
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _small(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return resize_bicubic(torch.from_numpy(image).permute(2, 0, 1), size).permute(1, 2, 0).numpy()


@TRANSFORMS.register_module()
class LoadImagePair:
    """Read an original as ``gt`` and its small version as ``img``, (H, W, 3) uint8 in RGB order.

    If the entry has no ``img_path``, the small version is made by
    :func:`mmwcc.functional.resize_bicubic`, as in the benchmarks. Originals are cropped at the
    right and at the bottom to ``scale`` times the small version.

    Args:
        scale: How many times smaller the small version is. Defaults to 2.

    Raises:
        ValueError: If scale is not an integer of at least 2.
        ValueError: In use, if an image cannot be decoded, is smaller than scale, or smaller than
            scale times its small version.
    """

    channel_order = 'rgb'  # figures of mmwcc read it

    def __init__(self, scale: int = 2) -> None:
        if not isinstance(scale, int) or scale < 2:
            raise ValueError(
                f'LoadImagePair: scale must be an integer of at least 2, got {scale!r}. Use 2, 3 '
                'or 4.'
            )
        self.scale = scale

    def __call__(self, results: dict) -> dict:
        """Return ``results`` with ``gt``, ``img`` and ``scale``."""
        gt = _read(results['gt_path'])
        img = _read(results['img_path']) if 'img_path' in results else None
        height, width = (
            (size // self.scale for size in gt.shape[:2]) if img is None else img.shape[:2]
        )
        if (
            min(height, width) < 1
            or gt.shape[0] < self.scale * height
            or gt.shape[1] < self.scale * width
        ):
            raise ValueError(
                f'LoadImagePair: an original must be {self.scale} times as large as its small '
                f'version, got {gt.shape[:2]} and {(height, width)} for {results["gt_path"]}. Give '
                'scale and the folders of the same enlargement.'
            )
        results['gt'] = gt[: self.scale * height, : self.scale * width]
        results['img'] = _small(results['gt'], (height, width)) if img is None else img
        results['scale'] = self.scale
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(scale={self.scale})'


@TRANSFORMS.register_module()
class PairedRandomCrop:
    """Crop a random window from the small version, and the matching window from the original.

    Args:
        crop_size: Side of the window in pixels of the small version. Defaults to 48.

    Raises:
        ValueError: If crop_size is less than 1.
        ValueError: In use, if the small version is smaller than the window.
    """

    def __init__(self, crop_size: int = 48) -> None:
        if crop_size < 1:
            raise ValueError(
                f'PairedRandomCrop: crop_size must be at least 1, got {crop_size}. Use 48 as in '
                'EDSR.'
            )
        self.crop_size = crop_size

    def __call__(self, results: dict) -> dict:
        """Return ``results`` with the windows as ``img`` and ``gt``."""
        free = [size - self.crop_size for size in results['img'].shape[:2]]
        if min(free) < 0:
            raise ValueError(
                'PairedRandomCrop: crop_size must fit into the small version, got '
                f'{self.crop_size} and {results["img"].shape[:2]}. Use a smaller crop_size, or '
                'larger images.'
            )
        top, left = (np.random.randint(space + 1) for space in free)
        for key, scale in (('img', 1), ('gt', results['scale'])):
            results[key] = results[key][
                scale * top : scale * (top + self.crop_size),
                scale * left : scale * (left + self.crop_size),
            ]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(crop_size={self.crop_size})'


@TRANSFORMS.register_module()
class PairedRandomFlipRotate:
    """Apply one of the eight flips and rotations by 90 degrees to both images.

    All eight have the same probability.
    """

    def __call__(self, results: dict) -> dict:
        """Return ``results`` with ``img`` and ``gt`` transformed alike."""
        turns, mirror = np.random.randint(4), np.random.randint(2)
        for key in ('img', 'gt'):
            turned = np.rot90(results[key], turns)
            results[key] = turned[:, ::-1] if mirror else turned
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


@TRANSFORMS.register_module()
class PackImagePair:
    """Pack a pair for :class:`mmwcc.models.SuperResolver`.

    The result has ``inputs`` and a sample with ``gt_img``, both (3, H, W) uint8.

    Args:
        meta_keys: Keys to keep as meta information if the entry has them. Defaults to index, paths
            and scale.
    """

    def __init__(
        self, meta_keys: Sequence[str] = ('sample_idx', 'img_path', 'gt_path', 'scale')
    ) -> None:
        self.meta_keys = tuple(meta_keys)

    def __call__(self, results: dict) -> dict:
        """Return ``dict(inputs=..., data_samples=...)``."""
        img, gt = (
            torch.from_numpy(np.ascontiguousarray(results[key].transpose(2, 0, 1)))
            for key in ('img', 'gt')
        )
        sample = BaseDataElement(
            metainfo={key: results[key] for key in self.meta_keys if key in results}, gt_img=gt
        )
        return dict(inputs=img, data_samples=sample)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(meta_keys={self.meta_keys})'
