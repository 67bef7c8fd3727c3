"""The losses of Monodepth2."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    'edge_aware_smoothness',
    'least_reprojection_error',
    'log_depth_error',
    'photometric_error',
    'ssim_distance',
]

_C1, _C2 = 0.01**2, 0.03**2


def ssim_distance(x: Tensor, y: Tensor) -> Tensor:
    """Return (1 - SSIM) / 2 of every pixel in 3x3 windows, clipped to [0, 1].

    Borders are padded by reflection.

    Args:
        x: Images in [0, 1], (B, C, H, W).
        y: Images of the same shape.

    Reference:
        Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", TIP
        2004.
    """
    x, y = (F.pad(image, (1, 1, 1, 1), mode='reflect') for image in (x, y))
    mean_x, mean_y = F.avg_pool2d(x, 3, 1), F.avg_pool2d(y, 3, 1)
    var_x = F.avg_pool2d(x * x, 3, 1) - mean_x * mean_x
    var_y = F.avg_pool2d(y * y, 3, 1) - mean_y * mean_y
    covariance = F.avg_pool2d(x * y, 3, 1) - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    norm = (mean_x * mean_x + mean_y * mean_y + _C1) * (var_x + var_y + _C2)
    return ((1 - similarity / norm) / 2).clamp(0, 1)


def photometric_error(x: Tensor, y: Tensor, ssim_weight: float = 0.85) -> Tensor:
    """Return the photometric error of every pixel, (B, 1, H, W).

    It is ``ssim_weight`` x SSIM distance + (1 - ``ssim_weight``) x absolute difference.

    Example:
        >>> black, white = torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
        >>> photometric_error(black, white, ssim_weight=0.0).unique()
        tensor([1.])
    """
    difference = (x - y).abs().mean(1, keepdim=True)
    return ssim_weight * ssim_distance(x, y).mean(1, keepdim=True) + (1 - ssim_weight) * difference


def least_reprojection_error(warped: Tensor, identity: Tensor | None) -> Tensor:
    """Return the least error over the sources, averaged over pixels, with auto-masking.

    Args:
        warped: Errors of the warped sources, (B, S, H, W).
        identity: Errors of the unwarped sources. Pixels that no warped source explains better do
            not contribute to the gradient (auto-masking). None masks nothing.

    Reference:
        Godard et al., "Digging into Self-Supervised Monocular Depth Estimation", ICCV 2019, section
        3.2.
    """
    error = warped.amin(1)
    if identity is not None:
        still = identity.amin(1)
        error = torch.where(error < still, error, still)
    return error.mean()


def edge_aware_smoothness(disp: Tensor, image: Tensor) -> Tensor:
    """Return the mean gradient of mean-normalized disparities, damped at the edges of the image.

    Args:
        disp: Disparities, (B, 1, H, W).
        image: Images in [0, 1], (B, C, H, W).
    """
    disp = disp / (disp.mean((2, 3), keepdim=True) + 1e-7)
    total = disp.new_zeros(())
    for dim in (2, 3):
        edges = image.diff(dim=dim).abs().mean(1, keepdim=True)
        total = total + (disp.diff(dim=dim).abs() * torch.exp(-edges)).mean()
    return total


def log_depth_error(depth: Tensor, measured: Tensor) -> Tensor:
    """Return the mean absolute difference of log depths where ``measured`` is positive.

    The result is 0 if no pixel was measured.
    """
    mask = measured > 0
    difference = (depth.clamp_min(1e-6).log() - measured.clamp_min(1e-6).log()).abs()
    return (difference * mask).sum() / mask.sum().clamp_min(1)
