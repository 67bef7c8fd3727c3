"""Errors of predicted depth."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from mmengine.evaluator import BaseMetric

from mmwcc.registry import METRICS

__all__ = ['DepthMetric', 'depth_errors']

# KITTI results are compared on this part of the image, as fractions of height and width: top,
# bottom, left, right.
_CROPS = {
    'garg': (0.40810811, 0.99189189, 0.03594771, 0.96405229),
    'eigen': (0.3324324, 0.91351351, 0.0359477, 0.96405229),
}


def depth_errors(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """Compare positive depths of the same pixels.

    Returns:
        AbsRel, SqRel, RMSE, RMSElog, and the fractions a1, a2 and a3 of pixels whose ratio is
        within 1.25, 1.25^2 and 1.25^3. SqRel and RMSE depend on the unit of the depths.

    Example:
        >>> errors = depth_errors(np.array([2., 4.]), np.array([1., 4.]))
        >>> errors['AbsRel'], errors['SqRel'], errors['a1']
        (0.5, 0.5, 0.5)

    Reference:
        Eigen et al., "Depth Map Prediction from a Single Image using a Multi-Scale Deep Network",
        NeurIPS 2014.
    """
    difference = predicted - measured
    ratio = np.maximum(predicted / measured, measured / predicted)
    errors = dict(
        AbsRel=np.mean(np.abs(difference) / measured),
        SqRel=np.mean(difference**2 / measured),
        RMSE=np.sqrt(np.mean(difference**2)),
        RMSElog=np.sqrt(np.mean(np.log(predicted / measured) ** 2)),
        **{f'a{n}': np.mean(ratio < 1.25**n) for n in (1, 2, 3)},
    )
    return {name: float(value) for name, value in errors.items()}


@METRICS.register_module()
class DepthMetric(BaseMetric):
    """Errors of depth, averaged over images, as KITTI results are reported.

    The results are ``depth/AbsRel``, ``SqRel``, ``RMSE``, ``RMSElog`` (less is better), ``a1``,
    ``a2`` and ``a3`` (more is better). Samples have ``pred_depth`` (H, W) and ``gt_depth`` (h, w),
    which is 0 where nothing was measured. Predictions are enlarged to the measured size by
    interpolating 1 / depth.

    Args:
        scaling: 'median' multiplies every prediction by the ratio of the medians, because depth
            from a single moving camera has no scale. A number multiplies all predictions by the
            same factor: 5.4 for networks trained on KITTI's stereo pairs, 1 for depth in metres.
            Defaults to 'median'.
        crop: Part of the image to compare: 'garg', 'eigen', or None for all of it. Defaults to
            None.
        min_depth: Measured depths at or below this are ignored, and predictions are clipped to it.
            Defaults to 1e-3.
        max_depth: Measured depths at or above this are ignored, and predictions are clipped to it.
            Defaults to 80.
        collect_device: Device on which the ranks exchange results, 'cpu' or 'gpu'. Defaults to
            'cpu'.
        prefix: Prefix of the names of the results. Defaults to None, 'depth'.

    Raises:
        ValueError: If scaling, crop or the range of depths is not as described above.
        ValueError: In use, if a sample lacks a field, or if nothing was measured in any image.

    Reference:
        Garg et al., "Unsupervised CNN for Single View Depth Estimation", ECCV 2016 (crop).
    """

    default_prefix = 'depth'

    def __init__(
        self,
        scaling: str | float = 'median',
        crop: str | None = None,
        min_depth: float = 1e-3,
        max_depth: float = 80.0,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if scaling != 'median' and not (isinstance(scaling, (int, float)) and scaling > 0):
            raise ValueError(
                f"DepthMetric: scaling must be 'median' or a number above 0, got {scaling!r}. Use "
                '1.0 for '
                'predictions in metres.'
            )
        if crop is not None and crop not in _CROPS:
            raise ValueError(
                f"DepthMetric: crop must be 'garg', 'eigen' or None, got {crop!r}. Use 'garg' for "
                'KITTI.'
            )
        if not 0 < min_depth < max_depth:
            raise ValueError(
                f'DepthMetric: min_depth must be in (0, max_depth), got {min_depth} and '
                f'{max_depth}. Use 1e-3 and 80.'
            )
        self.scaling, self.crop = scaling, crop
        self.min_depth, self.max_depth = min_depth, max_depth

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Record the errors of every image in which something was measured."""
        for sample in data_samples:
            for field in ('pred_depth', 'gt_depth'):
                if field not in sample:
                    raise ValueError(
                        f'DepthMetric: every sample must have {field}, got {sorted(sample)}. '
                        'Evaluate a depth network, with a pipeline that loads measured depth.'
                    )
            predicted, measured = (
                sample[field].double().cpu().numpy() for field in ('pred_depth', 'gt_depth')
            )
            height, width = measured.shape
            mask = (measured > self.min_depth) & (measured < self.max_depth)
            if self.crop is not None:
                top, bottom, left, right = (
                    int(share * side)
                    for share, side in zip(
                        _CROPS[self.crop], (height, height, width, width), strict=True
                    )
                )
                inside = np.zeros_like(mask)
                inside[top:bottom, left:right] = True
                mask &= inside
            if not mask.any():
                self.results.append(None)
                continue
            predicted = 1 / cv2.resize(
                1 / predicted, (width, height), interpolation=cv2.INTER_LINEAR
            )
            predicted, measured = predicted[mask], measured[mask]
            scale = (
                np.median(measured) / np.median(predicted)
                if self.scaling == 'median'
                else self.scaling
            )
            self.results.append(
                depth_errors(np.clip(scale * predicted, self.min_depth, self.max_depth), measured)
            )

    def compute_metrics(self, results: list[dict | None]) -> dict[str, float]:
        """Return the means over images."""
        measured = [errors for errors in results if errors is not None]
        if not measured:
            raise ValueError(
                'DepthMetric: gt_depth must hold measured depths, got none within min_depth, '
                'max_depth and crop in any image. Check the unit, metres, and the range.'
            )
        return {name: float(np.mean([errors[name] for errors in measured])) for name in measured[0]}
