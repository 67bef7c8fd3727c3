"""Pinhole geometry of image sequences, differentiable.

Pixel centres have integer coordinates, starting at (0, 0). Cameras look along z, with x to the
right and y down.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ['backproject', 'disp_to_depth', 'pose_matrix', 'project', 'warp']


def disp_to_depth(disp: Tensor, min_depth: float, max_depth: float) -> Tensor:
    """Turn sigmoid disparities in [0, 1] into depths.

    Disparity 0 is ``max_depth`` and 1 is ``min_depth``; between them the disparity is linear in 1 /
    depth.

    Example:
        >>> disp_to_depth(torch.tensor([0., 0.5, 1.]), 1.0, 3.0)
        tensor([3.0000, 1.5000, 1.0000])
    """
    low, high = 1 / max_depth, 1 / min_depth
    return 1 / (low + (high - low) * disp)


def pose_matrix(axis_angle: Tensor, translation: Tensor, invert: bool = False) -> Tensor:
    """Build rigid transformations.

    Args:
        axis_angle: Rotation axis times angle in radians, (B, 3).
        translation: Added after the rotation, (B, 3).
        invert: Whether to return the inverse. Defaults to False.

    Returns:
        Matrices, (B, 4, 4).

    Example:
        >>> turn = torch.tensor([[0., 0., torch.pi / 2]])
        >>> pose_matrix(turn, torch.tensor([[0., 0., 2.]]))[0, :, 0].round()
        tensor([-0., 1., 0., 0.])
    """
    with torch.autocast(axis_angle.device.type, enabled=False):
        x, y, z = axis_angle.unbind(1)
        zero = torch.zeros_like(x)
        cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).reshape(-1, 3, 3)
        rotation = torch.linalg.matrix_exp(cross)
        if invert:
            rotation = rotation.transpose(1, 2)
            translation = -(rotation @ translation[..., None])[..., 0]
        top = torch.cat([rotation, translation[..., None]], 2)
        bottom = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(top), 1, 4)
        return torch.cat([top, bottom], 1)


def backproject(depth: Tensor, intrinsics: Tensor) -> Tensor:
    """Return the 3D points that the pixels of a depth map show.

    Args:
        depth: Depth along the optical axis, (B, 1, H, W).
        intrinsics: Camera matrices in pixels, (B, 3, 3).

    Returns:
        Points in camera axes, (B, 3, H, W).
    """
    height, width = depth.shape[-2:]
    rows = torch.arange(height, device=depth.device, dtype=depth.dtype)
    columns = torch.arange(width, device=depth.device, dtype=depth.dtype)
    y, x = torch.meshgrid(rows, columns, indexing='ij')
    rays = torch.linalg.inv(intrinsics) @ torch.stack([x, y, torch.ones_like(x)]).flatten(1)
    return depth * rays.unflatten(2, (height, width))


def project(points: Tensor, intrinsics: Tensor, pose: Tensor) -> Tensor:
    """Project points into another camera.

    Args:
        points: Points in the axes of the first camera, (B, 3, H, W).
        intrinsics: Matrices of the other camera in pixels, (B, 3, 3).
        pose: From the axes of the first camera to those of the other, (B, 4, 4).

    Returns:
        Columns and rows in pixels, (B, H, W, 2); points behind the camera land far away.
    """
    moved = pose[:, :3, :3] @ points.flatten(2) + pose[:, :3, 3:]
    x, y, z = (intrinsics @ moved).unbind(1)
    pixels = torch.stack([x, y], 2) / z.clamp_min(1e-6)[..., None]
    return pixels.unflatten(1, points.shape[-2:])


def warp(source: Tensor, depth: Tensor, pose: Tensor, intrinsics: Tensor) -> Tensor:
    """Rebuild the image of one camera from the image of another, with bilinear sampling.

    Samples outside the source image take the nearest border pixel.

    Args:
        source: Image of the other camera, (B, C, H, W).
        depth: Depth seen by the first camera, (B, 1, H, W).
        pose: From the axes of the first camera to those of the other, (B, 4, 4).
        intrinsics: Camera matrices in pixels, the same for both, (B, 3, 3).

    Returns:
        The image, (B, C, H, W). It is computed in float32 at least, because half precision is too
        coarse for pixel coordinates.

    Reference:
        Zhou et al., "Unsupervised Learning of Depth and Ego-Motion from Video", CVPR 2017.
    """
    with torch.autocast(depth.device.type, enabled=False):
        if depth.dtype in (torch.float16, torch.bfloat16):
            depth = depth.float()
        pose, intrinsics, source = (tensor.to(depth.dtype) for tensor in (pose, intrinsics, source))
        pixels = project(backproject(depth, intrinsics), intrinsics, pose)
        height, width = source.shape[-2:]
        grid = 2 * pixels / pixels.new_tensor([width - 1, height - 1]) - 1
        return F.grid_sample(
            source, grid, mode='bilinear', padding_mode='border', align_corners=True
        )
