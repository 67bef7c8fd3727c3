"""Images sorted into one folder for each class."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine import fileio
from mmengine.dataset import BaseDataset

from mmwcc.registry import DATASETS

__all__ = ['ImageFolder']


@DATASETS.register_module()
class ImageFolder(BaseDataset):
    """Read images from one sub-folder for each class.

    ImageNet has this layout, and so has CACD when sorted by person. Images may lie at any depth
    below the sub-folders. Labels number the sub-folders in alphabetical order, or in the order of
    ``metainfo['classes']``.

    Args:
        data_root: Folder of the dataset. Defaults to ''.
        data_prefix: Folder below data_root that holds the sub-folders. Defaults to '', data_root
            itself.
        extensions: File extensions of images, in upper or lower case. Defaults to the usual ones.
        **kwargs: As for ``mmengine.dataset.BaseDataset``: ``pipeline``, ``metainfo``, ``indices``,
            ``test_mode``, ….

    Raises:
        FileNotFoundError: If the folder is missing.
        FileNotFoundError: If it has no sub-folder.
        FileNotFoundError: If a class of metainfo has no sub-folder.
        FileNotFoundError: If a class has no image.

    Example:
        With ``train/cat/1.jpg`` and ``train/dog/2.jpg`` in data/pets,
        ``ImageFolder(data_root='data/pets', data_prefix='train')`` has the classes cat, dog and the
        labels 0, 1.
    """

    EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp')

    def __init__(
        self,
        data_root: str = '',
        data_prefix: str | dict = '',
        extensions: Sequence[str] = EXTENSIONS,
        **kwargs,
    ) -> None:
        prefix = dict(img_path=data_prefix) if isinstance(data_prefix, str) else data_prefix
        self.extensions = tuple(extension.lower() for extension in extensions)
        super().__init__(data_root=data_root, data_prefix=prefix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return one entry for each image: ``img_path`` and ``gt_label``."""
        folder = self.data_prefix['img_path'] or self.data_root or '.'
        if not fileio.isdir(folder):
            raise FileNotFoundError(
                f'ImageFolder: data_prefix must be an existing folder, got {folder}. Set data_root '
                'and data_prefix to a folder that holds one sub-folder for each class.'
            )
        folders = sorted(
            name
            for name in fileio.list_dir_or_file(folder, list_file=False)
            if not name.startswith('.')
        )
        if not folders:
            raise FileNotFoundError(
                f'ImageFolder: data_prefix must hold one sub-folder for each class, got none in '
                f'{folder}. Move the images into folders called as their classes.'
            )
        classes = self._metainfo.get('classes', folders)
        missing = [name for name in classes if name not in folders]
        if missing:
            raise FileNotFoundError(
                f"ImageFolder: metainfo['classes'] must name sub-folders of {folder}, which has "
                f'none called {missing[0]} ({len(missing)} of {len(classes)} are missing). Leave '
                'metainfo out to take the sub-folders as they are.'
            )
        self._metainfo['classes'] = tuple(classes)
        return [
            entry for label, name in enumerate(classes) for entry in self._list(folder, name, label)
        ]

    def _list(self, folder: str, name: str, label: int) -> list[dict]:
        path = fileio.join_path(folder, name)
        images = sorted(
            image
            for image in fileio.list_dir_or_file(path, list_dir=False, recursive=True)
            if image.lower().endswith(self.extensions)
        )
        if not images:
            raise FileNotFoundError(
                f'ImageFolder: every class must have an image ({", ".join(self.extensions)}), got '
                f'none in {path}. Remove the folder or name the class list in metainfo.'
            )
        return [dict(img_path=fileio.join_path(path, image), gt_label=label) for image in images]
