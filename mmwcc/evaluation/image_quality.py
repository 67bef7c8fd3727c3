"""Peak signal-to-noise ratio and structural similarity of upscaled images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.evaluator import BaseMetric
from torch import Tensor

from mmwcc.functional import resize_bicubic
from mmwcc.registry import METRICS

__all__ = ['SuperResolutionMetric', 'luma', 'psnr', 'ssim']


def luma(image: Tensor) -> Tensor:
    """Return the luma Y of ITU-R BT.601, from 16 to 235, like rgb2ycbcr of MATLAB.

    Args:
        image: RGB pixels from 0 to 255, shape (3, H, W).

    Returns:
        The luma, shape (1, H, W).
    """
    weights = image.new_tensor([65.481, 128.553, 24.966])
    return 16 + torch.tensordot(weights, image, dims=([0], [0]))[None] / 255


def psnr(image: Tensor, original: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB of pixels from 0 to 255, infinite for equal ones.

    Example:
        >>> round(psnr(torch.zeros(1, 2, 2), torch.full((1, 2, 2), 25.5)), 6)
        20.0
    """
    error = (image.double() - original.double()).square().mean()
    return float(10 * torch.log10(255**2 / error))


def ssim(image: Tensor, original: Tensor) -> float:
    """Return the mean structural similarity of pixels from 0 to 255, averaged over channels.

    Windows are Gaussians of 11 x 11 pixels with a standard deviation of 1.5. Only windows that lie
    completely inside the image count.

    Args:
        image: Pixels (C, H, W), at least 11 x 11.
        original: Pixels of the same shape.

    Reference:
        Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity",
        2004.
    """
    x, y = image.double()[:, None], original.double()[:, None]
    taps = torch.exp(
        -torch.arange(-5.0, 6.0, dtype=torch.float64, device=x.device).square() / (2 * 1.5**2)
    )
    taps = taps / taps.sum()

    def mean(values: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(values, taps.view(1, 1, 11, 1)), taps.view(1, 1, 1, 11))

    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (
        (2 * mean_x * mean_y + c1)
        * (2 * covariance + c2)
        / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))
    )
    return float(similarity.mean())


@METRICS.register_module()
class SuperResolutionMetric(BaseMetric):
    """PSNR in dB and SSIM of upscaled images against their originals, averaged over images.

    The results are called ``sr/psnr_rgb``, ``sr/ssim_rgb``, ``sr/psnr_y`` and so on. Benchmarks on
    Set5, Set14, B100 and Urban100 use Y and a border of ``scale`` pixels. Benchmarks on DIV2K use
    RGB and a border of ``scale + 6``.

    Args:
        crop_border: Number of pixels to ignore on every side.
        color: 'rgb' and 'y', one or both. Defaults to both.
        bicubic: Whether to report bicubic interpolation of the inputs as well, as
            ``sr/bicubic_psnr_rgb`` and so on. Defaults to False.
        collect_device: Device on which the ranks exchange results, 'cpu' or 'gpu'. Defaults to
            'cpu'.
        prefix: Prefix of the names of the results. Defaults to None, 'sr'.

    Raises:
        ValueError: If crop_border is negative, or color is empty or contains anything else.
        ValueError: In use, if a prediction and its original differ in size, or less than 11 x 11
            pixels remain.
        KeyError: In use, if samples lack a field.

    Example:
        >>> metric = SuperResolutionMetric(crop_border=1, color=['rgb'])
        >>> one = torch.zeros(3, 16, 16, dtype=torch.uint8)
        >>> other = torch.full_like(one, 51)
        >>> metric.process(None, [dict(pred_img=one, gt_img=other)])
        >>> round(metric.evaluate(size=1)['sr/psnr_rgb'], 2)
        13.98
    """

    default_prefix = 'sr'

    def __init__(
        self,
        crop_border: int,
        color: Sequence[str] = ('rgb', 'y'),
        bicubic: bool = False,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if crop_border < 0:
            raise ValueError(
                f'SuperResolutionMetric: crop_border must not be negative, got {crop_border}. Use '
                '0 to compare whole images.'
            )
        self.color = (color,) if isinstance(color, str) else tuple(color)
        if not self.color or set(self.color) - {'rgb', 'y'}:
            raise ValueError(
                f"SuperResolutionMetric: color must be of 'rgb' and 'y', got {color!r}. Use "
                "('rgb', 'y') "
                'for both.'
            )
        self.crop_border, self.bicubic = crop_border, bicubic

    def process(self, data_batch: dict[str, Any], data_samples: Sequence[dict]) -> None:
        """Compare every ``pred_img`` with its ``gt_img``."""
        for index, sample in enumerate(data_samples):
            for field in ('pred_img', 'gt_img'):
                if field not in sample:
                    raise KeyError(
                        f'SuperResolutionMetric: every sample must have {field}, got '
                        f'{sorted(sample)}. Pack originals with mmwcc.PackImagePair and evaluate '
                        'mmwcc.SuperResolver.'
                    )
            original = sample['gt_img'].cpu().double()
            result = self._compare('', sample['pred_img'].cpu().double(), original)
            if self.bicubic:
                enlarged = resize_bicubic(data_batch['inputs'][index].cpu(), original.shape[1:])
                result.update(self._compare('bicubic_', enlarged.double(), original))
            self.results.append(result)

    def _compare(self, name: str, image: Tensor, original: Tensor) -> dict[str, float]:
        border = self.crop_border
        if image.shape != original.shape or min(image.shape[1:]) - 2 * border < 11:
            raise ValueError(
                'SuperResolutionMetric: predictions must have the size of the originals and leave '
                f'11 x 11 pixels inside crop_border={border}, got {tuple(image.shape)} and '
                f'{tuple(original.shape)}. Use the scale of the network in the pipeline, and whole '
                'images.'
            )
        result = {}
        for color in self.color:
            pair = [luma(pixels) if color == 'y' else pixels for pixels in (image, original)]
            pair = [
                pixels[:, border : pixels.shape[1] - border, border : pixels.shape[2] - border]
                for pixels in pair
            ]
            result[f'{name}psnr_{color}'], result[f'{name}ssim_{color}'] = psnr(*pair), ssim(*pair)
        return result

    def compute_metrics(self, results: list[dict[str, float]]) -> dict[str, float]:
        """Return the means over images."""
        return {key: sum(result[key] for result in results) / len(results) for key in results[0]}
