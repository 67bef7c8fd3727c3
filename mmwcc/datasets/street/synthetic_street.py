"""Endless street scenes for segmentation and detection, rendered instead of downloaded."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

import numpy as np
from mmengine.dataset import BaseDataset

from mmwcc.registry import DATASETS, TRANSFORMS

from .scene import BOX_CLASSES, CLASSES, StreetScene, render_street

PALETTE = (
    (128, 128, 128),
    (128, 0, 0),
    (192, 192, 128),
    (128, 64, 128),
    (60, 40, 222),
    (128, 128, 0),
    (192, 128, 128),
    (64, 0, 128),
    (64, 64, 0),
)
SPLITS = ('train', 'val', 'test')
TASKS = ('segmentation', 'detection')


_SCENES: dict[tuple, StreetScene] = {}


@DATASETS.register_module()
class SyntheticStreetDataset(BaseDataset):
    """Render street scenes, each from its number.

    Put :class:`LoadSyntheticStreet` first in the pipeline. The three splits of a seed have no scene
    in common. The same arguments give the same scenes on every machine, up to rounding in the last
    bit of a pixel.

    Args:
        length: Number of scenes. Defaults to 500.
        img_scale: Width and height in pixels. Defaults to (192, 128).
        seed: Which collection of scenes, 0 or more. Defaults to 0.
        split: 'train', 'val' or 'test'. Defaults to 'train'.
        task: 'segmentation' (nine classes) or 'detection' (sign, car, pedestrian); decides
            ``metainfo``. Defaults to 'segmentation'.
        cache: Whether to keep rendered scenes in memory, about 8 bytes per pixel and scene in every
            process; datasets of the same scenes share them. Defaults to True.
        **kwargs: ``metainfo``, ``pipeline``, ``test_mode``, ``indices``, ``lazy_init``,
            ``serialize_data`` and ``max_refetch`` of ``mmengine.dataset.BaseDataset``.

    Raises:
        TypeError: If ``length`` or ``seed`` is not a whole number.
        ValueError: If ``length`` is below 1.
        ValueError: If ``seed`` is below 0.
        ValueError: If ``img_scale`` is not two whole numbers of at least 8.
        ValueError: If ``split`` or ``task`` is unknown.

    Example:
        >>> pipeline = [LoadSyntheticStreet()]
        >>> dataset = SyntheticStreetDataset(length=4, img_scale=(64, 48), pipeline=pipeline)
        >>> dataset[0]['img'].shape
        (48, 64, 3)
    """

    METAINFO = dict(classes=CLASSES, palette=list(PALETTE))

    def __init__(
        self,
        length: int = 500,
        img_scale: tuple[int, int] = (192, 128),
        seed: int = 0,
        split: str = 'train',
        task: str = 'segmentation',
        cache: bool = True,
        **kwargs,
    ) -> None:
        _check_whole('length', length, 1)
        _check_whole('seed', seed, 0)
        if len(img_scale) != 2 or not all(isinstance(v, int) and v >= 8 for v in img_scale):
            raise ValueError(
                'SyntheticStreetDataset: img_scale must be (width, height), two whole numbers of '
                f'at least 8, got {img_scale}. Use for example (192, 128).'
            )
        for name, value, known in (('split', split, SPLITS), ('task', task, TASKS)):
            if value not in known:
                raise ValueError(
                    f'SyntheticStreetDataset: {name} must be one of {known}, got {value!r}. Use '
                    f'{known[0]!r} for the first.'
                )
        self.length, self.seed, self.split = length, seed, split
        self.img_scale = tuple(img_scale)
        self.task, self.cache = task, cache
        if task == 'detection':
            palette = [PALETTE[CLASSES.index(name)] for name in BOX_CLASSES]
            kwargs['metainfo'] = dict(
                classes=BOX_CLASSES, palette=palette, **(kwargs.get('metainfo') or {})
            )
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """Return one entry for each scene: what :class:`LoadSyntheticStreet` needs to render it."""
        collection = len(SPLITS) * self.seed + SPLITS.index(self.split)
        return [
            dict(
                street_seed=collection,
                street_index=i,
                img_scale=self.img_scale,
                img_id=i,
                seg_map_path=None,
                img_path=f'synthetic_street/{self.seed}/{self.split}/{i:06d}.png',
                label_map=None,
                reduce_zero_label=False,
            )
            for i in range(self.length)
        ]

    def get_data_info(self, idx: int) -> dict:
        """Return the entry of scene ``idx``, with the rendered scene if scenes are cached."""
        info = super().get_data_info(idx)
        if self.cache:
            scene = _key(info)
            if scene not in _SCENES:
                _SCENES[scene] = _render(info)
            info['street_scene'] = _SCENES[scene]
        return info

    def render_all(self, processes: int | None = None) -> None:
        """Render all scenes into the cache at once, several at a time.

        Without this, each scene is rendered when it is first read, one after the other.

        Args:
            processes: Number of processes that render. Defaults to None: one for each processor.

        Raises:
            RuntimeError: If the dataset does not cache scenes.

        Example:
            >>> SyntheticStreetDataset(length=4, img_scale=(64, 48)).render_all(processes=2)
        """
        if not self.cache:
            raise RuntimeError(
                'SyntheticStreetDataset: render_all needs cache=True, got False. Set it, or let '
                'every scene be rendered when it is read.'
            )
        infos = [BaseDataset.get_data_info(self, index) for index in range(len(self))]
        missing = {_key(info): info for info in infos if _key(info) not in _SCENES}
        with ProcessPoolExecutor(processes) as pool:
            scenes = pool.map(_render, missing.values(), chunksize=8)
            _SCENES.update(zip(missing, scenes, strict=True))


@TRANSFORMS.register_module()
class LoadSyntheticStreet:
    """Render the scene that an entry of :class:`SyntheticStreetDataset` describes.

    It takes the place of the loaders of mmseg and mmdet. It sets ``img``, ``img_shape``,
    ``ori_shape``, ``height``, ``width``, ``gt_seg_map``, ``seg_fields`` and ``instances`` (boxes
    and labels for mmdet's ``LoadAnnotations(with_bbox=True)``; mmseg needs no other loader).

    Args:
        with_depth: Whether to add ``gt_depth_map``, (H, W) float32 metres, to the fields that are
            cropped, resized and flipped with the labels. Defaults to False.
        sky_depth: Depth written for the sky; 0 marks it as not measured. Defaults to 0.0.

    Raises:
        KeyError: If the entry does not come from a ``SyntheticStreetDataset``.

    Example:
        >>> entry = SyntheticStreetDataset(length=1, img_scale=(64, 48)).get_data_info(0)
        >>> LoadSyntheticStreet()(entry)['gt_seg_map'].shape
        (48, 64)
    """

    def __init__(self, with_depth: bool = False, sky_depth: float = 0.0) -> None:
        self.with_depth = with_depth
        self.sky_depth = sky_depth

    def __call__(self, results: dict) -> dict:
        """Return ``results`` with image and ground truth added."""
        if 'street_seed' not in results:
            raise KeyError(
                'LoadSyntheticStreet: the entry must come from mmwcc.SyntheticStreetDataset, got '
                f'the keys {sorted(results)}. Use LoadImageFromFile for images on disk.'
            )
        scene = results.pop('street_scene', None) or _render(results)
        height, width = scene.labels.shape
        # Later transforms may write into these arrays, which must not change the cached scene.
        results.update(
            img=scene.image.copy(),
            img_shape=(height, width),
            ori_shape=(height, width),
            height=height,
            width=width,
            gt_seg_map=scene.labels.copy(),
            seg_fields=['gt_seg_map'],
        )
        results['instances'] = [
            dict(bbox=box, bbox_label=label, ignore_flag=0)
            for box, label in zip(scene.boxes.tolist(), scene.box_labels.tolist(), strict=True)
        ]
        if self.with_depth:
            results['gt_depth_map'] = np.where(
                np.isinf(scene.depth), np.float32(self.sky_depth), scene.depth
            )
            results['seg_fields'].append('gt_depth_map')
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(with_depth={self.with_depth}, sky_depth={self.sky_depth})'


def _key(info: dict) -> tuple:
    return info['street_seed'], info['street_index'], info['img_scale']


def _render(info: dict) -> StreetScene:
    width, height = info['img_scale']
    return render_street(info['street_seed'], info['street_index'], (height, width))


def _check_whole(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(
            f'SyntheticStreetDataset: {name} must be a whole number, got {value!r}. Use an int.'
        )
    if value < least:
        raise ValueError(
            f'SyntheticStreetDataset: {name} must be at least {least}, got {value}. Use {least} or '
            'more.'
        )
