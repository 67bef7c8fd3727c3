"""The methods of a library, as its own model index lists them, and their configs made small."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml
from mmengine.config import Config

from mmwcc.compat import get_installed_path
from mmwcc.registry import type_name

__all__ = ['LIBRARIES', 'Method', 'methods', 'outside', 'stock_config']

LIBRARIES = ('mmseg', 'mmdet')

# Values of a config that have the size of an image: its side, or one for each direction.
_SIZES = ('img_size',)
# Weights that would be downloaded.
_WEIGHTS = ('pretrained', 'teacher_ckpt')
# Settings of what proposes objects, in training and prediction.
_PROPOSERS = ('rpn_proposal', 'rpn')
_PROPOSALS = 16


@dataclass(frozen=True)
class Method:
    """A method of a library.

    Attributes:
        library: Name of the library.
        name: Name of the folder of its configs.
        config: The first config that its metafile lists and that is installed, or None if there is
            none.
    """

    library: str
    name: str
    config: Path | None

    @property
    def key(self) -> str:
        """What identifies the method among those of all libraries, as in 'mmseg/pspnet'."""
        return f'{self.library}/{self.name}'


def methods(library: str) -> list[Method]:
    """Return the methods of a library in the order of their names.

    A method is a folder of configs that the model index of the library names.

    Args:
        library: One of :data:`LIBRARIES`.

    Raises:
        ValueError: If it is another library.
        PackageNotFoundError: If it is not installed.
    """
    if library not in LIBRARIES:
        raise ValueError(
            f'methods: library must be one of {", ".join(LIBRARIES)}, got {library!r}.'
        )
    root = Path(get_installed_path(library), '.mim')
    index = yaml.safe_load((root / 'model-index.yml').read_text(encoding='utf-8'))
    files = sorted(root / unquote(name) for name in index['Import'])
    return [Method(library, file.parent.name, _first_config(root, file)) for file in files]


def _first_config(root: Path, metafile: Path) -> Path | None:
    for name in _listed_configs(metafile):
        for folder in (root, metafile.parent):  # one metafile writes the bare name of its config
            if (folder / name).is_file():
                return folder / name
    return None


def _listed_configs(metafile: Path) -> Iterator[str]:
    """Yield the configs that a metafile lists, of which some are written as in an address."""
    if metafile.is_file():
        content = yaml.safe_load(metafile.read_text(encoding='utf-8'))
        models = content.get('Models') or [] if isinstance(content, dict) else content
        yield from (unquote(model['Config']) for model in models if 'Config' in model)


def outside(config: Config) -> str:
    """Return why a method cannot be tried on single images with labels, or '' if it can."""
    preprocessor = config.model.get('data_preprocessor') or config.get('data_preprocessor') or {}
    return _OUTSIDE.get(type_name(preprocessor.get('type', '')).rpartition('.')[2], '')


_OUTSIDE = dict(
    TrackDataPreprocessor='works on video: it tracks objects over several frames',
    MultiBranchDataPreprocessor='is semi-supervised: it needs a teacher and unlabelled images',
    ReIDDataPreprocessor='tells persons apart: it needs several images of each',
)


def stock_config(method: Method, size: int) -> Config:
    """Read the config of a method and make it small enough for a trial.

    No weights are loaded. Sizes of images in the model become ``size``. A detector keeps at most 16
    proposals for an image, about as many for each pixel as the 1000 of a large image. Augmentations
    of whole batches are left out. Normalization that several processes share becomes that of torch,
    because mmcv's cannot be built in one.

    Args:
        method: The method, which must have a config.
        size: Height and width of the images.
    """
    assert method.config is not None, 'a method without a config cannot be tried'
    config = Config.fromfile(method.config)
    _shrink(config.model, size)
    preprocessor = config.model.get('data_preprocessor') or config.get('data_preprocessor')
    if preprocessor is not None:
        if preprocessor.get('size') is not None:
            preprocessor.size = (size, size)
        if preprocessor.get('batch_augments') is not None:
            preprocessor.batch_augments = None
    return config


def _shrink(part: Any, size: int) -> None:
    """Change what :func:`stock_config` says, in all dictionaries of a config."""
    if isinstance(part, (list, tuple)):
        for item in part:
            _shrink(item, size)
    if not isinstance(part, dict):
        return
    for key, value in part.items():
        if key in _WEIGHTS or (key == 'init_cfg' and _is_pretrained(value)):
            part[key] = None
        elif key in _SIZES and isinstance(value, (int, tuple, list)):
            part[key] = size if isinstance(value, int) else (size, size)
        elif key in _PROPOSERS and isinstance(value, dict) and 'max_per_img' in value:
            value['max_per_img'] = min(value['max_per_img'], _PROPOSALS)
        elif key == 'type' and value == 'MMSyncBN':
            part[key] = 'SyncBN'
        else:
            _shrink(value, size)


def _is_pretrained(init: Any) -> bool:
    return isinstance(init, dict) and 'checkpoint' in init
