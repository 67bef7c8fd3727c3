"""Transforms for classification pipelines that mmcv does not have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mmwcc.registry import TRANSFORMS

__all__ = ['GaussianNoise', 'PackClsInputs', 'PadRandomCrop']


@TRANSFORMS.register_module()
class PadRandomCrop:
    """Pad an image on all sides and crop a random window from it.

    Args:
        crop_size: Side of the window in pixels, or (height, width).
        padding: Pixels added on every side. Defaults to 0.
        pad_value: Value of added pixels. Defaults to 0.

    Raises:
        ValueError: If crop_size or padding is negative or crop_size is 0.
        ValueError: In use, if the padded image is smaller than the window.

    Example:
        >>> PadRandomCrop(32, padding=4)(dict(img=np.zeros((32, 32, 3), np.uint8)))['img'].shape
        (32, 32, 3)
    """

    def __init__(
        self, crop_size: int | Sequence[int], padding: int = 0, pad_value: float = 0
    ) -> None:
        self.crop_size = (crop_size, crop_size) if isinstance(crop_size, int) else tuple(crop_size)
        if min(self.crop_size) < 1 or padding < 0:
            raise ValueError(
                'PadRandomCrop: crop_size must be positive and padding not negative, got '
                f'{crop_size} and {padding}. Use crop_size=32, padding=4 for CIFAR.'
            )
        self.padding, self.pad_value = padding, pad_value

    def __call__(self, results: dict) -> dict:
        """Return ``results`` with ``img`` and ``img_shape`` of the window."""
        image = results['img']
        if self.padding:
            border = ((self.padding, self.padding),) * 2 + ((0, 0),) * (image.ndim - 2)
            image = np.pad(image, border, constant_values=self.pad_value)
        height, width = self.crop_size
        free = (image.shape[0] - height, image.shape[1] - width)
        if min(free) < 0:
            raise ValueError(
                f'PadRandomCrop: crop_size must fit into the padded image, got {self.crop_size} '
                f'and {image.shape[:2]}. Put a Resize before it, or pad more.'
            )
        top, left = (int(np.random.randint(space + 1)) for space in free)
        results['img'] = image[top : top + height, left : left + width]
        results['img_shape'] = (height, width)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(crop_size={self.crop_size}, padding={self.padding})'


@TRANSFORMS.register_module()
class GaussianNoise:
    """Add white Gaussian noise to an image, to measure how robust a network is.

    The noise depends only on the seed and on the position of the image in the dataset
    (``sample_idx``), so that all networks see the same noisy images. The noisy values are rounded
    and clipped to 0 to 255.

    Args:
        variance: Variance of the noise for pixels scaled to [0, 1]: 0.01 is a standard deviation of
            25.5 grey levels. 0 changes nothing. Defaults to 0.
        seed: Seed of the noise. Defaults to 0.

    Raises:
        ValueError: If variance is negative.

    Example:
        >>> GaussianNoise(0.0)(dict(img=np.full((1, 1, 3), 7, np.uint8)))['img'].max()
        7
    """

    def __init__(self, variance: float = 0.0, seed: int = 0) -> None:
        if variance < 0:
            raise ValueError(
                f'GaussianNoise: variance must not be negative, got {variance}. Use 0.0 for no '
                'noise.'
            )
        self.variance, self.seed = float(variance), seed

    def __call__(self, results: dict) -> dict:
        """Return ``results`` with a noisy ``img``."""
        if self.variance:
            image = results['img']
            generator = np.random.default_rng((self.seed, int(results.get('sample_idx', 0))))
            noisy = image + 255 * self.variance**0.5 * generator.standard_normal(
                image.shape, dtype=np.float32
            )
            results['img'] = noisy.round().clip(0, 255).astype(image.dtype)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(variance={self.variance:g}, seed={self.seed})'


@TRANSFORMS.register_module()
class PackClsInputs:
    """Pack an image and its label for a classifier.

    The result has ``inputs`` (C, H, W) and a sample with ``gt_label`` (1, ).

    Args:
        meta_keys: Keys to keep as meta information if the entry has them. Defaults to index, path
            and shape.

    Raises:
        KeyError: In use, if there is no image.

    Example:
        >>> packed = PackClsInputs()(dict(img=np.zeros((2, 4, 3), np.uint8), gt_label=1))
        >>> packed['inputs'].shape, packed['data_samples'].gt_label
        (torch.Size([3, 2, 4]), tensor([1]))
    """

    def __init__(
        self, meta_keys: Sequence[str] = ('sample_idx', 'img_path', 'ori_shape', 'img_shape')
    ) -> None:
        self.meta_keys = tuple(meta_keys)

    def __call__(self, results: dict) -> dict:
        """Return ``dict(inputs=..., data_samples=...)``."""
        from mmengine.structures import BaseDataElement

        if 'img' not in results:
            raise KeyError(
                f'PackClsInputs: the entry must have img, got {sorted(results)}. Begin the '
                'pipeline with '
                "dict(type='LoadImageFromFile')."
            )
        image = results['img'] if results['img'].ndim == 3 else results['img'][..., None]
        sample = BaseDataElement(
            metainfo={key: results[key] for key in self.meta_keys if key in results}
        )
        if 'gt_label' in results:
            sample.gt_label = torch.tensor([results['gt_label']], dtype=torch.int64)
        return dict(
            inputs=torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            data_samples=sample,
        )

    def __repr__(self) -> str:
        return f'{type(self).__name__}(meta_keys={self.meta_keys})'
