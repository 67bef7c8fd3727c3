"""Measure how well an auto-encoder reconstructs images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric

from mmwcc.registry import METRICS

__all__ = ['ReconstructionPSNR']


@METRICS.register_module()
class ReconstructionPSNR(BaseMetric):
    """Peak signal-to-noise ratio of decoded images, and the share of energy in their high part.

    ``reconstruction/psnr`` is in dB, of pixels from 0 to 255, averaged over images.
    ``reconstruction/high_share`` is the energy of I_H relative to that of I_L and I_H together,
    both without their means.

    Args:
        collect_device: Device on which the ranks exchange results, 'cpu' or 'gpu'. Defaults to
            'cpu'.
        prefix: Prefix of the names of the results. Defaults to None, 'reconstruction'.

    Raises:
        KeyError: In use, if samples do not come from mmwcc.WAE.

    Reference:
        Chen et al., "Learning a Wavelet-like Auto-Encoder to Accelerate Deep Neural Networks", AAAI
        2018.
    """

    default_prefix = 'reconstruction'

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Compare ``decoded_pixels`` of every sample with the image as it was loaded."""
        for image, sample in zip(data_batch['inputs'], data_samples, strict=True):
            if 'decoded_pixels' not in sample:
                raise KeyError(
                    'ReconstructionPSNR: every sample must have decoded_pixels, got '
                    f'{sorted(sample)}. Evaluate mmwcc.WAE with it, not a classifier.'
                )
            image = image.double().cpu()
            decoded = sample['decoded_pixels'].double().cpu()[:, : image.shape[1], : image.shape[2]]
            # A perfect reconstruction counts as 148 dB.
            error = (image - decoded).square().mean().clamp_min(1e-10)
            low, high = (
                part.double().cpu() - part.double().cpu().mean((1, 2), keepdim=True)
                for part in (sample['low'], sample['high'])
            )
            share = high.square().sum() / (low.square().sum() + high.square().sum()).clamp_min(
                1e-12
            )
            self.results.append((float(10 * torch.log10(255**2 / error)), float(share)))

    def compute_metrics(self, results: list[tuple[float, float]]) -> dict[str, float]:
        """Return the means over images."""
        psnr, share = torch.tensor(results, dtype=torch.float64).mean(0).tolist()
        return dict(psnr=psnr, high_share=share)
