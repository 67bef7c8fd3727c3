"""Drives through synthetic streets, with exact depth and exact motion of the camera."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from mmengine.dataset import BaseDataset

from mmwcc.registry import DATASETS

from .geometry import Camera
from .raster import rasterize
from .scene import render
from .synthetic_street import SPLITS
from .world import StreetWorld

__all__ = ['SyntheticStreetSequence', 'relative_pose', 'street_drive']

# The rig: focal length divided by width, and metres above the ground. The camera is level.
FOCAL, HEIGHT = 0.8, 1.65
# Images are rendered at this many times the resolution and averaged, as a lens does. Otherwise,
# details smaller than a pixel would flicker from frame to frame.
SUPERSAMPLING = 2

_FRAMES: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}


@DATASETS.register_module()
class SyntheticStreetSequence(BaseDataset):
    """Render the frames of a camera that drives through streets, for learning depth from video.

    Only the camera moves. Entries have ``frames``, ``intrinsics``, ``source_poses``, ``frame_ids``
    and ``gt_depth`` in metres (0 for the sky), as the transforms of
    :mod:`mmwcc.datasets.depth_transforms` expect. No loader is needed. The three splits of a seed
    have no street in common.

    Args:
        length: Number of samples. Defaults to 800.
        img_scale: Width and height in pixels. Defaults to (192, 64).
        frame_ids: Which frames to return in addition to the target, by their distance in time.
            Defaults to (-1, 1).
        frames_per_street: Number of targets from one street, 0.3 to 0.7 metres apart. Defaults to
            8.
        seed: Which collection of streets, 0 or more. Defaults to 0.
        split: 'train', 'val' or 'test'. Defaults to 'train'.
        **kwargs: As for ``mmengine.dataset.BaseDataset``: ``pipeline``, ``test_mode``, ``indices``,
            ….

    Raises:
        ValueError: If length or frames_per_street is below 1, or seed is below 0.
        ValueError: If img_scale is not two whole numbers of at least 8.
        ValueError: If frame_ids holds 0 or anything but whole numbers.
        ValueError: If split is unknown.

    Note:
        Frames stay in memory, about 8 bytes per pixel and frame in every process.

    Example:
        >>> entry = SyntheticStreetSequence(length=2, img_scale=(64, 32)).get_data_info(0)
        >>> len(entry['frames']), entry['gt_depth'].shape, entry['source_poses'].shape
        (3, (32, 64), (2, 4, 4))
    """

    def __init__(
        self,
        length: int = 800,
        img_scale: tuple[int, int] = (192, 64),
        frame_ids: Sequence[int] = (-1, 1),
        frames_per_street: int = 8,
        seed: int = 0,
        split: str = 'train',
        **kwargs,
    ) -> None:
        for name, value, least in (
            ('length', length, 1),
            ('frames_per_street', frames_per_street, 1),
            ('seed', seed, 0),
        ):
            if value < least:
                raise ValueError(
                    f'SyntheticStreetSequence: {name} must be at least {least}, got {value}. Use '
                    f'{least} or more.'
                )
        if len(img_scale) != 2 or not all(isinstance(v, int) and v >= 8 for v in img_scale):
            raise ValueError(
                'SyntheticStreetSequence: img_scale must be (width, height), two whole numbers of '
                f'at least 8, got {img_scale}. Use for example (192, 64).'
            )
        if not all(isinstance(i, int) and i for i in frame_ids):
            raise ValueError(
                'SyntheticStreetSequence: frame_ids must be whole numbers other than 0, got '
                f'{frame_ids}. Use (-1, 1) for the frames before and after.'
            )
        if split not in SPLITS:
            raise ValueError(
                f'SyntheticStreetSequence: split must be one of {SPLITS}, got {split!r}. Use '
                f'{SPLITS[0]!r} for the first.'
            )
        self.length, self.img_scale, self.frame_ids = length, tuple(img_scale), tuple(frame_ids)
        self.frames_per_street, self.collection = (
            frames_per_street,
            len(SPLITS) * seed + SPLITS.index(split),
        )
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """Return one entry for each sample: the number of its street, and its time there."""
        size = self.img_scale[::-1]
        return [
            dict(
                street_index=i // self.frames_per_street,
                time=i % self.frames_per_street,
                ori_shape=size,
                img_shape=size,
                frame_ids=self.frame_ids,
            )
            for i in range(self.length)
        ]

    def get_data_info(self, idx: int) -> dict:
        """Return the entry of sample ``idx`` with its frames, each rendered only once."""
        info = super().get_data_info(idx)
        street, times = (
            info['street_index'],
            [info['time'], *(info['time'] + i for i in self.frame_ids)],
        )
        frames = [self._frame(street, time) for time in times]
        cameras = [street_drive(self.collection, street, time) for time in times]
        width, height = self.img_scale
        focal = FOCAL * width
        info.update(
            frames=[image.copy() for image, _ in frames],
            gt_depth=frames[0][1].copy(),
            intrinsics=np.array(
                [[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]], np.float32
            ),
        )
        if self.frame_ids:
            info['source_poses'] = np.stack(
                [relative_pose(cameras[0], camera) for camera in cameras[1:]]
            )
        return info

    def _frame(self, street: int, time: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the image and its depth."""
        key = (self.collection, street, time, self.img_scale)
        if key not in _FRAMES:
            world, camera = (
                _world(self.collection, street),
                street_drive(self.collection, street, time),
            )
            width, height = self.img_scale
            fine = render(
                world,
                camera,
                (SUPERSAMPLING * height, SUPERSAMPLING * width),
                noise_seed=1000 + time,
            )
            inverse = rasterize(world, camera, (height, width)).inverse_depth
            depth = np.where(inverse > 0, 1 / np.maximum(inverse, np.float32(1e-6)), np.float32(0))
            _FRAMES[key] = (
                cv2.resize(fine.image, self.img_scale, interpolation=cv2.INTER_AREA),
                depth,
            )
        return _FRAMES[key]


@lru_cache(maxsize=4)
def _world(collection: int, street: int) -> StreetWorld:
    return StreetWorld.sample(collection, street)


def street_drive(collection: int, street: int, time: int) -> Camera:
    """Return the camera at a point in time of the drive through a street.

    It moves forwards at a steady speed and turns a little.

    Example:
        >>> first, second = (street_drive(0, 0, time).position for time in (0, 1))
        >>> 0.3 < second[1] - first[1] < 0.7
        True
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([collection, street, 1])))
    start = _world(collection, street).viewpoint
    speed, turn = float(rng.uniform(0.31, 0.69)), float(rng.uniform(-0.01, 0.01))
    heading, look = 0.2 * start.yaw, float(rng.uniform(-0.04, 0.04))
    x, y = start.position[0], start.position[1]
    for step in range(abs(time)):
        sign = 1 if time > 0 else -1
        # The chord of an arc points to the middle of its two headings.
        angle = heading + sign * (step + 0.5) * turn
        x, y = x + sign * speed * np.sin(angle), y + sign * speed * np.cos(angle)
    return Camera((float(x), float(y), HEIGHT), yaw=heading + time * turn + look, focal=FOCAL)


def relative_pose(camera: Camera, other: Camera) -> np.ndarray:
    """Return the (4, 4) float32 matrix from the axes of ``camera`` to those of ``other``.

    Example:
        >>> relative_pose(Camera((0., 0., 1.)), Camera((0., 0.5, 1.)))[:3, 3].tolist()
        [0.0, 0.0, -0.5]
    """
    pose = np.eye(4)
    pose[:3, :3] = other.axes() @ camera.axes().T
    pose[:3, 3] = other.to_camera(np.asarray(camera.position)[None])[0]
    return pose.astype(np.float32)
