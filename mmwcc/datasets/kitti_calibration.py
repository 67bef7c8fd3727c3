"""Calibration files of KITTI's raw drives, and laser points as depth maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ['Calibration', 'laser_depth', 'read_calibration']


@dataclass(frozen=True)
class Calibration:
    """A rectified camera.

    Attributes:
        intrinsics: Camera matrix in pixels, (3, 3) float32.
        velo_to_camera: From the axes of the laser (forward, left, up) to those of the camera, (4,
            4) float64.
    """

    intrinsics: np.ndarray
    velo_to_camera: np.ndarray


def read_calibration(folder: Path, camera: int) -> Calibration:
    """Read calib_cam_to_cam.txt and calib_velo_to_cam.txt of a date.

    Args:
        folder: Folder of the date.
        camera: Number of the camera, 2 for the left and 3 for the right one.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file lacks a matrix, or a matrix has the wrong number of entries.
    """
    cameras, laser = (folder / f'calib_{name}_to_cam.txt' for name in ('cam', 'velo'))
    projection = _matrix(cameras, f'P_rect_0{camera}', (3, 4))
    rectify, velo = np.eye(4), np.eye(4)
    rectify[:3, :3] = _matrix(cameras, 'R_rect_00', (3, 3))
    velo[:3, :3], velo[:3, 3] = _matrix(laser, 'R', (3, 3)), _matrix(laser, 'T', (3,))
    # P = K [I | t]: rectified cameras differ only by a translation.
    shift = np.eye(4)
    shift[:3, 3] = np.linalg.solve(projection[:, :3], projection[:, 3])
    return Calibration(projection[:, :3].astype(np.float32), shift @ rectify @ velo)


def _matrix(path: Path, key: str, shape: tuple[int, ...]) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(
            f'KITTIRawDataset: every date must have its calibration, got no {path}. Download the '
            'calibration of the date and unpack it there.'
        )
    for line in path.read_text().splitlines():
        name, _, numbers = line.partition(':')
        if name.strip() == key:
            values = numbers.split()
            try:
                return np.array(values, np.float64).reshape(shape)
            except ValueError as error:
                raise ValueError(
                    f'KITTIRawDataset: {key} must hold {np.prod(shape)} numbers, got {len(values)} '
                    f'in {path}. Unpack the calibration again.'
                ) from error
    raise ValueError(
        f'KITTIRawDataset: a calibration must have {key}, got none in {path}. Unpack the '
        'calibration again.'
    )


def laser_depth(
    points: np.ndarray,
    velo_to_camera: np.ndarray,
    intrinsics: np.ndarray,
    size: tuple[int, int],
    forward_distance: bool = True,
) -> np.ndarray:
    """Project laser points into a depth map; each pixel keeps its nearest point.

    Args:
        points: (n, 3) in the axes of the laser: forward, left, up.
        velo_to_camera: Matrix (4, 4) to the axes of the camera.
        intrinsics: Camera matrix (3, 3) in pixels.
        size: Height and width of the map.
        forward_distance: Whether depth is the forward distance from the laser instead of the
            distance along the optical axis. Defaults to True.

    Returns:
        Metres, (H, W) float32, 0 where there is no point.

    Note:
        Coordinates are rounded and lowered by one, as in KITTI's development kit, which counts
        pixels from one.
    """
    points = points[points[:, 0] >= 0].astype(np.float64)
    local = points @ velo_to_camera[:3, :3].T + velo_to_camera[:3, 3]
    pixels = local @ np.asarray(intrinsics, np.float64).T
    in_front = pixels[:, 2] > 1e-3
    points, local, pixels = points[in_front], local[in_front], pixels[in_front]
    column, row = (np.rint(pixels[:, i] / pixels[:, 2]).astype(np.int64) - 1 for i in (0, 1))
    height, width = size
    inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
    distance = (points[:, 0] if forward_distance else local[:, 2])[inside]
    depth = np.full(size, np.inf, np.float32)
    np.minimum.at(depth, (row[inside], column[inside]), distance.astype(np.float32))
    return np.where(np.isfinite(depth), depth, np.float32(0))
