"""CIFAR-10 from its original files, binary or pickled."""

from __future__ import annotations

import codecs
import pickle
from pathlib import Path

import numpy as np
from mmengine.dataset import BaseDataset

from mmwcc.registry import DATASETS

__all__ = ['CIFAR10']

_SIZE = 32
_PIXELS = 3 * _SIZE * _SIZE
_RECORD = 1 + _PIXELS
_HELP = (
    'Get CIFAR-10 from https://www.cs.toronto.edu/~kriz/cifar.html, the binary or the Python '
    'version, and unpack it into data_root.'
)


@DATASETS.register_module()
class CIFAR10(BaseDataset):
    """Read the 32x32 images of CIFAR-10, or of any dataset in its format.

    The files lie in ``data_root``, or in its sub-folder cifar-10-batches-bin or cifar-10-batches-py
    as the archives unpack. There are two formats:

    - Binary: ``data_batch_*.bin`` and ``test_batch.bin``. A file holds any number of records of one
      label byte and 3,072 bytes of red, green and blue planes.
    - Pickled: ``data_batch_*`` and ``test_batch``.

    Entries have ``gt_label`` and ``img``, (32, 32, 3) uint8 in RGB order, as in mmpretrain.

    Args:
        data_root: Folder of the files.
        split: 'train' or 'test'. Defaults to 'train'.
        **kwargs: As for ``mmengine.dataset.BaseDataset``: ``pipeline``, ``metainfo``, ``indices``,
            ``test_mode``, …. Class names are read from batches.meta.txt or batches.meta if there is
            one.

    Raises:
        ValueError: If split is neither 'train' nor 'test'.
        FileNotFoundError: If the folder has no batches of the split.
        ValueError: If a file does not consist of whole records, or of images of 3,072 bytes.
        ValueError: If a label is not below the number of classes.
        pickle.UnpicklingError: If a pickle holds anything but arrays and plain data.

    Reference:
        Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """

    channel_order = 'rgb'  # figures of mmwcc read it
    METAINFO = dict(
        classes=(
            'airplane',
            'automobile',
            'bird',
            'cat',
            'deer',
            'dog',
            'frog',
            'horse',
            'ship',
            'truck',
        )
    )

    def __init__(self, data_root: str, split: str = 'train', **kwargs) -> None:
        if split not in ('train', 'test'):
            raise ValueError(
                f"CIFAR10: split must be 'train' or 'test', got {split!r}. CIFAR-10 has no other; "
                "cut one off with indices or mmengine's dataset wrappers."
            )
        self.split = split
        self._classes_given = 'classes' in (kwargs.get('metainfo') or {})
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return one entry for each image: ``img`` and ``gt_label``."""
        files, binary = self._find()
        if not self._classes_given:
            names = _class_names(files[0].parent, binary)
            self._metainfo['classes'] = names or self._metainfo['classes']
        entries = []
        for file in files:
            images, labels = (_read_binary if binary else _read_pickle)(file)
            classes = len(self._metainfo['classes'])
            if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
                raise ValueError(
                    f'CIFAR10: labels must be in [0, {classes - 1}] for {classes} classes, got '
                    f'{labels.min()} to {labels.max()} in {file}. Write all class names into '
                    'batches.meta.txt or give them as metainfo=dict(classes=...).'
                )
            images = images.reshape(-1, 3, _SIZE, _SIZE).transpose(0, 2, 3, 1)
            entries += [
                dict(img=np.ascontiguousarray(image), gt_label=int(label))
                for image, label in zip(images, labels, strict=True)
            ]
        return entries

    def _find(self) -> tuple[list[Path], bool]:
        root = Path(self.data_root).expanduser()
        stem = 'data_batch_*' if self.split == 'train' else 'test_batch'
        for folder in (root, root / 'cifar-10-batches-bin', root / 'cifar-10-batches-py'):
            binary = sorted(folder.glob(f'{stem}.bin'))
            if binary:
                return binary, True
            pickles = sorted(path for path in folder.glob(stem) if not path.suffix)
            if pickles:
                return pickles, False
        raise FileNotFoundError(
            f'CIFAR10: data_root must hold {stem}.bin or the pickle {stem}, got neither in {root}. '
            f'{_HELP}'
        )


def _class_names(folder: Path, binary: bool) -> tuple[str, ...]:
    meta = folder / ('batches.meta.txt' if binary else 'batches.meta')
    if not meta.is_file():
        return ()
    names = meta.read_text().split('\n') if binary else _unpickle(meta)['label_names']
    return tuple(name.strip() for name in names if name.strip())


def _read_binary(file: Path) -> tuple[np.ndarray, np.ndarray]:
    content = np.fromfile(file, dtype=np.uint8)
    if not len(content) or len(content) % _RECORD:
        raise ValueError(
            f'CIFAR10: a binary batch must be made of records of {_RECORD:,} bytes, got '
            f'{len(content):,} bytes in {file}. It was probably cut off; unpack the archive again.'
        )
    records = content.reshape(-1, _RECORD)
    return records[:, 1:], records[:, 0]


def _read_pickle(file: Path) -> tuple[np.ndarray, np.ndarray]:
    batch = _unpickle(file)
    if not isinstance(batch, dict) or not {'data', 'labels'} <= set(batch):
        raise ValueError(
            'CIFAR10: a pickled batch must be a dict with data and labels, got '
            f'{type(batch).__name__} in {file}. {_HELP}'
        )
    images, labels = np.asarray(batch['data'], dtype=np.uint8), np.asarray(batch['labels'])
    if images.shape != (len(labels), _PIXELS):
        raise ValueError(
            f'CIFAR10: data of a pickled batch must have the shape ({len(labels)}, {_PIXELS}) for '
            f'its labels, got {images.shape} in {file}. {_HELP}'
        )
    return images, labels


_ALLOWED = {
    'numpy.ndarray': np.ndarray,
    'numpy.dtype': np.dtype,
    '_codecs.encode': codecs.encode,
    '_reconstruct': np.zeros(0).__reduce__()[0],
}


class _ArrayUnpickler(pickle.Unpickler):
    """Load arrays and plain data, and reject everything that could run code."""

    def find_class(self, module: str, name: str):
        # NumPy 1 and 2 have different names for this module; a file may come from either.
        known = (
            name
            if module in ('numpy.core.multiarray', 'numpy._core.multiarray')
            else f'{module}.{name}'
        )
        if known in _ALLOWED:
            return _ALLOWED[known]
        raise pickle.UnpicklingError(
            'CIFAR10: a pickled batch must hold arrays and plain data only, got '
            f'{module}.{name}, which could run any code. Use the binary version of the data.'
        )


def _unpickle(file: Path):
    with file.open('rb') as stream:
        return _ArrayUnpickler(
            stream, encoding='latin1'
        ).load()  # Python 2 wrote the original files
