"""KITTI's raw drives for learning depth, and depth measured by the laser scanner."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.dataset import BaseDataset

from mmwcc.registry import DATASETS, TRANSFORMS

from .kitti_calibration import Calibration, laser_depth, read_calibration

__all__ = ['KITTIRawDataset', 'LoadVelodyneDepth']

_CAMERAS = {'l': 2, 'r': 3}
_OTHER = {'l': 'r', 'r': 'l'}


@DATASETS.register_module()
class KITTIRawDataset(BaseDataset):
    """Read the raw drives of KITTI from a list of frames.

    The list is one of Monodepth2's. Each line holds a drive, a frame number and a side, such as
    ``2011_09_26/2011_09_26_drive_0022_sync 473 r``. Images are those of ``image_02`` (l) and
    ``image_03`` (r) in the synced and rectified drives, either .png as downloaded or .jpg. Entries
    have ``frame_paths``, ``intrinsics`` in pixels of the images, ``frame_ids``, ``source_poses``
    (not finite where unknown), ``velo_to_camera`` and ``velodyne_path``.

    Args:
        data_root: Folder that holds one folder for each date, with its drives and three calibration
            files. Defaults to ''.
        ann_file: The list of frames, as a path below data_root or a path of its own. Defaults to
            ''.
        frame_ids: Which frames to return in addition to the target, by their distance in time; 's'
            is the other camera of the stereo pair. Defaults to (-1, 1); use () for predictions.
        baseline: Distance between the cameras of the stereo pair in the unit of depth; it sets the
            unit of stereo training. Defaults to 0.1 as in Monodepth2: one unit is 5.4 metres.
        **kwargs: As for ``mmengine.dataset.BaseDataset``: ``pipeline``, ``test_mode``, ``indices``,
            ….

    Raises:
        ValueError: If frame_ids holds anything else.
        FileNotFoundError: If the list, a drive, an image, or a calibration file is missing.
        ValueError: If a line of the list or a calibration file is malformed.

    Reference:
        Geiger et al., "Vision meets Robotics: The KITTI Dataset", IJRR 2013; lists: Eigen et al.,
        NeurIPS 2014, Zhou et al., CVPR 2017.
    """

    def __init__(
        self,
        data_root: str = '',
        ann_file: str = '',
        frame_ids: Sequence[int | str] = (-1, 1),
        baseline: float = 0.1,
        **kwargs,
    ) -> None:
        if not all(i == 's' or (isinstance(i, int) and i) for i in frame_ids):
            raise ValueError(
                "KITTIRawDataset: frame_ids must be whole numbers other than 0 or 's', got "
                f"{tuple(frame_ids)}. Use (-1, 1) for video and ('s',) for stereo pairs."
            )
        self.frame_ids, self.baseline = tuple(frame_ids), baseline
        self._calibrations: dict[tuple[str, str], Calibration] = {}
        super().__init__(data_root=data_root, ann_file=ann_file, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return one entry for each line of the list."""
        root = Path(self.data_root)
        if not Path(self.ann_file).is_file():
            raise FileNotFoundError(
                f'KITTIRawDataset: ann_file must be a list of frames, got {self.ann_file}, which '
                'does not exist. Copy the folder splits of Monodepth2 into data_root.'
            )
        images: dict[tuple[str, str], dict] = defaultdict(dict)
        entries = []
        for drive, number, side in _read_list(Path(self.ann_file)):
            for view in (side, _OTHER[side]) if 's' in self.frame_ids else (side,):
                if (drive, view) not in images:
                    images[drive, view] = _list_images(root, drive, view)
            date = drive.split('/')[0]
            if (date, side) not in self._calibrations:
                self._calibrations[date, side] = read_calibration(root / date, _CAMERAS[side])
            wanted = [(side, number)] + [
                (_OTHER[side], number) if isinstance(i, str) else (side, number + i)
                for i in self.frame_ids
            ]
            paths = []
            for view, frame in wanted:
                if frame not in images[drive, view]:
                    raise FileNotFoundError(
                        f'KITTIRawDataset: frame {frame} ({view}) of {drive} must exist for the '
                        f'line "{drive} {number} {side}" with frame_ids {self.frame_ids}, got '
                        f'none in {_folder(root, drive, view)}. Download the whole drive, or take '
                        'the line out.'
                    )
                paths.append(images[drive, view][frame])
            entries.append(
                dict(
                    frame_paths=paths,
                    date=date,
                    side=side,
                    frame_ids=self.frame_ids,
                    velodyne_path=str(root / drive / f'velodyne_points/data/{number:010d}.bin'),
                )
            )
        return entries

    def get_data_info(self, idx: int) -> dict:
        """Return entry ``idx`` with the calibration of its date."""
        info = super().get_data_info(idx)
        calibration = self._calibrations[info['date'], info['side']]
        info.update(
            intrinsics=calibration.intrinsics.copy(), velo_to_camera=calibration.velo_to_camera
        )
        if self.frame_ids:
            poses = np.full((len(self.frame_ids), 4, 4), np.nan, np.float32)
            for pose, frame_id in zip(poses, self.frame_ids, strict=True):
                if frame_id == 's':
                    pose[:] = np.eye(4)
                    pose[0, 3] = -self.baseline if info['side'] == 'l' else self.baseline
            info['source_poses'] = poses
        return info


@TRANSFORMS.register_module()
class LoadVelodyneDepth:
    """Add ``gt_depth`` (H, W) float32 in metres, measured by the laser scanner.

    It has the size of the frames at this step of the pipeline, and is 0 where nothing was measured.
    Before a resize it is the ground truth for evaluation; after a resize it is a target for
    training.

    Args:
        forward_distance: Whether depth is measured along the laser's forward direction, as in
            published results, instead of along the optical axis. Defaults to True.

    Raises:
        FileNotFoundError: In use, if the scan is missing.
        ValueError: In use, if the file is not a scan.
    """

    def __init__(self, forward_distance: bool = True) -> None:
        self.forward_distance = forward_distance

    def __call__(self, results: dict) -> dict:
        """Return ``results`` with ``gt_depth``."""
        path = Path(results['velodyne_path'])
        if not path.is_file():
            raise FileNotFoundError(
                f'LoadVelodyneDepth: velodyne_path must be a scan, got {path}, which does not '
                'exist. Download the drive with its velodyne_points.'
            )
        scan = np.fromfile(path, np.float32)
        if not len(scan) or len(scan) % 4:
            raise ValueError(
                'LoadVelodyneDepth: a scan must be made of points of four float32, got '
                f'{len(scan)} numbers in {path}. It was probably cut off; unpack the drive again.'
            )
        results['gt_depth'] = laser_depth(
            scan.reshape(-1, 4)[:, :3],
            results['velo_to_camera'],
            results['intrinsics'],
            results['frames'][0].shape[:2],
            self.forward_distance,
        )
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(forward_distance={self.forward_distance})'


def _read_list(path: Path) -> list[tuple[str, int, str]]:
    frames = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if (
            len(words) != 3
            or '/' not in words[0]
            or not words[1].isdigit()
            or words[2] not in _CAMERAS
        ):
            raise ValueError(
                f'KITTIRawDataset: a line of ann_file must be "date/drive frame l|r", got {line!r} '
                f'in line {number} of {path}. Use the lists of Monodepth2, not paths of images.'
            )
        frames.append((words[0], int(words[1]), words[2]))
    if not frames:
        raise ValueError(
            f'KITTIRawDataset: ann_file must name frames, got none in {path}. Use the lists of '
            'Monodepth2.'
        )
    return frames


def _folder(root: Path, drive: str, side: str) -> Path:
    return root / drive / f'image_0{_CAMERAS[side]}' / 'data'


def _list_images(root: Path, drive: str, side: str) -> dict[int, str]:
    folder = _folder(root, drive, side)
    if not folder.is_dir():
        raise FileNotFoundError(
            f'KITTIRawDataset: data_root must hold the drives of the list, got none in {folder}. '
            'Download the synced and rectified drive, and unpack it below its date.'
        )
    return {
        int(path.stem): str(path)
        for path in sorted(folder.iterdir())
        if path.suffix in ('.jpg', '.png') and path.stem.isdigit()
    }
