"""Find the images in a work folder, and tell predictions from charts and other figures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ['RunImages', 'find_images']

_SUFFIXES = ('.png', '.jpg', '.jpeg')
_BY_VISUALIZER = 'vis_image'
# The visualization hooks of OpenMMLab name predictions <mode>_<name of the image>.
_PREDICTION = re.compile(r'(val|test)_')
# mmdetection calls all test images alike. What follows is the number of the image, not a step.
_NUMBERED = re.compile(r'test_img_\d+')


@dataclass
class RunImages:
    """The images in a work folder by name, the newest of each name.

    Attributes:
        predictions: Images on which predictions are drawn.
        figures: What else was given to a visualizer, such as the figures of mmwcc's hooks.
    """

    predictions: dict[str, Path] = field(default_factory=dict)
    figures: dict[str, Path] = field(default_factory=dict)


def find_images(folder: Path, configs: Iterable[Mapping[str, Any]]) -> RunImages:
    """Find the images that were drawn during the runs of a work folder.

    Other images, such as plots that tools have written there, are left out.

    Args:
        folder: The work folder.
        configs: The configs of its runs. They name folders in which mmdetection draws.
    """
    drawn_in = set(_output_folders(configs))
    found = RunImages()
    for file in _image_files(folder):
        if file.parent.name == _BY_VISUALIZER:
            target = found.predictions if _PREDICTION.match(file.name) else found.figures
            target[_without_step(file.stem)] = file
        elif file.parent.name in drawn_in:
            found.predictions[file.stem] = file
    return found


def _output_folders(configs: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """Yield the name of each folder that a visualization hook draws in, without its parents."""
    for config in configs:
        hooks = [
            *(config.get('default_hooks') or {}).values(),
            *(config.get('custom_hooks') or ()),
        ]
        for hook in hooks:
            if hook and hook.get('test_out_dir'):
                yield Path(hook['test_out_dir']).name


def _image_files(folder: Path) -> list[Path]:
    """Return all image files in a folder, the newest last."""
    files = [
        file for file in folder.rglob('*') if file.suffix.lower() in _SUFFIXES and file.is_file()
    ]
    return sorted(files, key=lambda file: (file.stat().st_mtime, _last_number(file.stem)))


def _without_step(stem: str) -> str:
    """Remove the step that LocalVisBackend appends to a name."""
    return stem if _NUMBERED.fullmatch(stem) else re.sub(r'_\d+$', '', stem)


def _last_number(text: str) -> int:
    """Return the number at the end of a name, or -1 without one."""
    match = re.search(r'(\d+)$', text)
    return int(match.group(1)) if match else -1
