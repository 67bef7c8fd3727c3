"""Transforms for depth from video, which treat every frame of a sample alike.

An entry has ``frames``, the target (H, W, 3) uint8 BGR followed by its sources, and ``intrinsics``
(3, 3) in pixels. Where they are known it also has ``source_poses`` (S, 4, 4), from the axes of the
target to those of each source, and ``gt_depth`` (H, W) float32, which is 0 where nothing was
measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch

from mmwcc.registry import TRANSFORMS

__all__ = [
    'DepthColorJitter',
    'LoadDepthFrames',
    'PackDepthInputs',
    'RandomFlipDepthFrames',
    'ResizeDepthFrames',
]


@TRANSFORMS.register_module()
class LoadDepthFrames:
    """Read ``frame_paths`` of an entry into ``frames``, the target first.

    Raises:
        FileNotFoundError: In use, if an image cannot be read.
        ValueError: In use, if the frames differ in size.
    """

    def __call__(self, results: dict) -> dict:
        """Return ``results`` with ``frames``, ``img_path``, ``ori_shape`` and ``img_shape``."""
        frames: list[Any] = [cv2.imread(path, cv2.IMREAD_COLOR) for path in results['frame_paths']]
        for path, frame in zip(results['frame_paths'], frames, strict=True):
            if frame is None:
                raise FileNotFoundError(
                    f'LoadDepthFrames: frame_paths must be images that can be read, got {path}. '
                    'Check that it is there and not cut off.'
                )
        shapes = {frame.shape for frame in frames}
        if len(shapes) > 1:
            raise ValueError(
                f'LoadDepthFrames: the frames of a sample must have one size, got {sorted(shapes)} '
                f'for {results["frame_paths"]}. Take frames of one drive.'
            )
        shape = frames[0].shape[:2]
        results.update(
            frames=frames, img_path=results['frame_paths'][0], ori_shape=shape, img_shape=shape
        )
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


@TRANSFORMS.register_module()
class ResizeDepthFrames:
    """Resize all frames with Lanczos resampling and adapt the intrinsics.

    ``gt_depth`` keeps its size, for evaluation.

    Args:
        scale: Width and height in pixels.

    Raises:
        ValueError: If scale is not two positive numbers.
    """

    def __init__(self, scale: tuple[int, int]) -> None:
        if len(scale) != 2 or min(scale) < 1:
            raise ValueError(
                f'ResizeDepthFrames: scale must be (width, height), got {scale}. Use (640, 192) '
                'for KITTI.'
            )
        self.scale = (scale[0], scale[1])

    def __call__(self, results: dict) -> dict:
        """Return ``results`` with resized frames."""
        from PIL import Image

        height, width = results['frames'][0].shape[:2]
        results['frames'] = [
            np.asarray(Image.fromarray(frame).resize(self.scale, Image.Resampling.LANCZOS))
            for frame in results['frames']
        ]
        x, y = self.scale[0] / width, self.scale[1] / height
        # Pixel centres have integer coordinates, so the left edge of an image is at -0.5.
        change = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]], np.float32)
        results['intrinsics'] = change @ results['intrinsics']
        results['img_shape'] = self.scale[::-1]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(scale={self.scale})'


@TRANSFORMS.register_module()
class RandomFlipDepthFrames:
    """Mirror a sample from left to right: frames, intrinsics, poses and depth.

    Args:
        prob: Probability of mirroring. Defaults to 0.5.

    Raises:
        ValueError: If prob is not in [0, 1].
    """

    def __init__(self, prob: float = 0.5) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f'RandomFlipDepthFrames: prob must be in [0, 1], got {prob}. Use 0.5.')
        self.prob = prob

    def __call__(self, results: dict) -> dict:
        """Return ``results``, mirrored or not."""
        if np.random.random() >= self.prob:
            return results
        results['frames'] = [np.ascontiguousarray(frame[:, ::-1]) for frame in results['frames']]
        intrinsics = results['intrinsics'].copy()
        intrinsics[0, 2] = results['frames'][0].shape[1] - 1 - intrinsics[0, 2]
        results['intrinsics'] = intrinsics
        if 'source_poses' in results:
            mirror = np.diag([-1, 1, 1, 1]).astype(np.float32)
            results['source_poses'] = mirror @ results['source_poses'] @ mirror
        if 'gt_depth' in results:
            results['gt_depth'] = np.ascontiguousarray(results['gt_depth'][:, ::-1])
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(prob={self.prob})'


@TRANSFORMS.register_module()
class DepthColorJitter:
    """Change brightness, contrast, saturation and hue, in random order and equally in all frames.

    Only the input of the networks (``aug_frames``) is changed. ``frames``, which the loss compares,
    stay as they are.

    Args:
        brightness: Factors are drawn from [1 - brightness, 1 + brightness]. Defaults to 0.2.
        contrast: As brightness. Defaults to 0.2.
        saturation: As brightness. Defaults to 0.2.
        hue: Shifts are drawn from [-hue, hue], in full turns of the colour wheel. Defaults to 0.1.
        prob: Probability of changing a sample. Defaults to 0.5.

    Raises:
        ValueError: If prob is not in [0, 1], or a range is not.

    Reference:
        torchvision.transforms.ColorJitter.
    """

    def __init__(
        self,
        brightness: float = 0.2,
        contrast: float = 0.2,
        saturation: float = 0.2,
        hue: float = 0.1,
        prob: float = 0.5,
    ) -> None:
        self.ranges = dict(brightness=brightness, contrast=contrast, saturation=saturation, hue=hue)
        self.prob = prob
        for name, value in (*self.ranges.items(), ('prob', prob)):
            if not 0 <= value <= 1:
                raise ValueError(
                    f'DepthColorJitter: {name} must be in [0, 1], got {value}. Leave it out for '
                    "Monodepth2's."
                )

    def __call__(self, results: dict) -> dict:
        """Return ``results`` with ``aug_frames``, changed or not."""
        frames = results['frames']
        if np.random.random() < self.prob:
            changes = [
                (name, np.random.uniform(-reach, reach)) for name, reach in self.ranges.items()
            ]
            order = np.random.permutation(len(changes))
            frames = [adjust_colors(frame, [changes[i] for i in order]) for frame in frames]
        results['aug_frames'] = frames
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.ranges}, prob={self.prob})'


def adjust_colors(image: np.ndarray, changes: Sequence[tuple[str, float]]) -> np.ndarray:
    """Apply colour changes, given by name and amount, to a BGR image in order.

    An amount of 0 changes nothing.

    Example:
        >>> adjust_colors(np.full((1, 1, 3), 100, np.uint8), [('brightness', 0.1)]).tolist()
        [[[110, 110, 110]]]
    """
    image = image.astype(np.float32) / 255
    for name, amount in changes:
        if name == 'hue':
            hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
            hsv[..., 0] = (hsv[..., 0] + 360 * amount) % 360
            image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
            continue
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None]
        anchor = {'brightness': np.float32(0), 'contrast': grey.mean(), 'saturation': grey}[name]
        image = np.clip(anchor + (1 + amount) * (image - anchor), 0, 1)
    return np.rint(255 * image).astype(np.uint8)


@TRANSFORMS.register_module()
class PackDepthInputs:
    """Pack a sample for :class:`mmwcc.models.Monodepth2`.

    ``inputs`` are the frames (1 + S, 3, H, W), or (3, H, W) for a target without sources. They are
    the augmented frames if an earlier transform made them. The sample holds the unchanged
    ``frames``, ``intrinsics``, ``source_poses`` and ``gt_depth``.

    Args:
        meta_keys: Keys to keep as meta information if the entry has them.

    Raises:
        KeyError: In use, if there are no frames.
    """

    def __init__(
        self,
        meta_keys: Sequence[str] = (
            'sample_idx',
            'img_path',
            'ori_shape',
            'img_shape',
            'frame_ids',
        ),
    ) -> None:
        self.meta_keys = tuple(meta_keys)

    def __call__(self, results: dict) -> dict:
        """Return ``dict(inputs=..., data_samples=...)``."""
        from mmengine.structures import BaseDataElement

        if 'frames' not in results:
            raise KeyError(
                f'PackDepthInputs: the entry must have frames, got {sorted(results)}. Begin the '
                'pipeline '
                "with dict(type='mmwcc.LoadDepthFrames')."
            )
        sample = BaseDataElement(
            metainfo={key: results[key] for key in self.meta_keys if key in results}
        )
        inputs = _stack(results.get('aug_frames', results['frames']))
        if len(inputs) > 1:
            sample.frames = _stack(results['frames'])
        for key in ('intrinsics', 'source_poses', 'gt_depth'):
            if key in results:
                sample.set_field(torch.from_numpy(np.asarray(results[key], np.float32)), key)
        return dict(inputs=inputs if len(inputs) > 1 else inputs[0], data_samples=sample)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(meta_keys={self.meta_keys})'


def _stack(frames: Sequence[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.stack(frames).transpose(0, 3, 1, 2)))
