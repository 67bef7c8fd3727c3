"""CamVid street scenes with the usual 11 classes."""

from __future__ import annotations

import os

from mmengine import fileio
from mmseg.datasets import BaseSegDataset

from mmwcc.messages import some_of
from mmwcc.registry import DATASETS

_HELP = (
    'Get CamVid and bring it into the layout img_dir/{train,val,test}, ann_dir/{train,val,test} '
    'with tools/dataset_converters/camvid.py (see docs/datasets.md).'
)


@DATASETS.register_module()
class CamVidDataset(BaseSegDataset):
    """Read CamVid in the 11 classes of the SegNet tutorial.

    There are 367 images for training, 101 for validation and 233 for testing. Label maps hold 0 to
    10, and 255 for pixels to ignore.

    Args:
        img_suffix: File extension of the images. Defaults to None: the one of .png, .jpg and .jpeg
            that the folder contains.
        seg_map_suffix: File extension of the label maps. Defaults to '.png'.
        **kwargs: As for ``mmseg.datasets.BaseSegDataset``: ``data_root``,
            ``data_prefix=dict(img_path=..., seg_map_path=...)``, ``pipeline`` and so on.

    Raises:
        FileNotFoundError: If the folder of images or of label maps is missing.
        FileNotFoundError: If the folder holds no image with the suffix.
        ValueError: If ``img_suffix`` is None and the folder mixes suffixes.
        ValueError: If images and label maps do not match one to one.

    Note:
        This class does not check that label maps hold only 0 to 10 and 255; the converter does.

    Reference:
        Brostow, Fauqueur and Cipolla, "Semantic object classes in video", Pattern Recognition
        Letters 2009; Badrinarayanan, Kendall and Cipolla, "SegNet", TPAMI 2017 (classes and split).
    """

    METAINFO = dict(
        classes=(
            'sky',
            'building',
            'pole',
            'road',
            'pavement',
            'tree',
            'signsymbol',
            'fence',
            'car',
            'pedestrian',
            'bicyclist',
        ),
        palette=[
            [128, 128, 128],
            [128, 0, 0],
            [192, 192, 128],
            [128, 64, 128],
            [60, 40, 222],
            [128, 128, 0],
            [192, 128, 128],
            [64, 64, 128],
            [64, 0, 128],
            [64, 64, 0],
            [0, 128, 192],
        ],
    )

    img_suffix: str | None

    def __init__(
        self, img_suffix: str | None = None, seg_map_suffix: str = '.png', **kwargs
    ) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return the images and their label maps.

        These are all images of the folder, or those that ``ann_file`` lists.
        """
        img_dir, ann_dir = self.data_prefix.get('img_path'), self.data_prefix.get('seg_map_path')
        for name, folder in (('img_path', img_dir), ('seg_map_path', ann_dir)):
            if folder is not None and not fileio.isdir(folder, backend_args=self.backend_args):
                raise FileNotFoundError(
                    f'CamVidDataset: {name} must be an existing folder, got {folder}. {_HELP}'
                )
        names = self._list(img_dir)
        if self.img_suffix is None:
            self.img_suffix = self._find_suffix(img_dir, names)
        images = {name[: -len(self.img_suffix)] for name in names if name.endswith(self.img_suffix)}
        if not images:
            raise FileNotFoundError(
                f'CamVidDataset: img_path must hold images ending in {self.img_suffix}, got none '
                f'in {img_dir}. {_HELP}'
            )
        if ann_dir is not None:
            suffix = self.seg_map_suffix
            labels = {name[: -len(suffix)] for name in self._list(ann_dir) if name.endswith(suffix)}
            _check_match(img_dir, ann_dir, images, labels)
        return super().load_data_list()

    def _list(self, folder: str) -> list[str]:
        return list(
            fileio.list_dir_or_file(
                folder, list_dir=False, recursive=True, backend_args=self.backend_args
            )
        )

    @staticmethod
    def _find_suffix(img_dir: str, names: list[str]) -> str:
        found = sorted({os.path.splitext(name)[1] for name in names} & {'.png', '.jpg', '.jpeg'})
        if len(found) > 1:
            raise ValueError(
                'CamVidDataset: img_suffix must be given where a folder mixes suffixes, got '
                f'{found} in '
                f"{img_dir}. Use img_suffix='{found[0]}' or remove the others."
            )
        return found[0] if found else '.png'


def _check_match(img_dir: str, ann_dir: str, images: set[str], labels: set[str]) -> None:
    if images == labels:
        return

    def some(names: set[str]) -> str:
        return some_of(names) or 'none'

    raise ValueError(
        'CamVidDataset: every image must have one label map, got images without label map in '
        f'{img_dir}: {some(images - labels)}; label maps without image in {ann_dir}: '
        f'{some(labels - images)}. Convert the data again or remove these files.'
    )
