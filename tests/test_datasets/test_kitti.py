"""KITTI's raw drives, written here in their layout, and laser points placed by hand."""

import cv2
import numpy as np
import pytest

pytest.importorskip('mmengine')

from mmengine.registry import DATASETS

from mmwcc.datasets import KITTIRawDataset, LoadVelodyneDepth
from mmwcc.datasets.kitti_calibration import laser_depth, read_calibration

DATE = '2011_09_26'
DRIVE = f'{DATE}/{DATE}_drive_0001_sync'
HEIGHT, WIDTH, FOCAL = 20, 40, 30.0
CENTRE = (19.0, 9.0)

# From the laser's forward, left, up to the camera's right, down, forward.
AXES = '0 -1 0 0 0 -1 1 0 0'


def write_calibration(folder):
    folder.mkdir(parents=True, exist_ok=True)
    lines = ['calib_time: 09-Jan-2012 13:57:47', 'R_rect_00: 1 0 0 0 1 0 0 0 1']
    for camera, x in ((2, 0.06), (3, -0.47)):
        lines.append(
            f'P_rect_0{camera}: {FOCAL} 0 {CENTRE[0]} {FOCAL * x} 0 {FOCAL} {CENTRE[1]} 0 0 0 1 0'
        )
    (folder / 'calib_cam_to_cam.txt').write_text('\n'.join(lines))
    (folder / 'calib_velo_to_cam.txt').write_text(f'R: {AXES}\nT: 0 -0.08 -0.27\ndelta_f: 0 0')


def write_drive(root, frames=range(5), suffix='.png'):
    for camera in (2, 3):
        folder = root / DRIVE / f'image_0{camera}' / 'data'
        folder.mkdir(parents=True)
        for i in frames:
            image = np.full((HEIGHT, WIDTH, 3), 10 * i + camera, np.uint8)
            cv2.imwrite(str(folder / f'{i:010d}{suffix}'), image)
    scans = root / DRIVE / 'velodyne_points' / 'data'
    scans.mkdir(parents=True)
    np.float32([[9.27, 1.0, -0.5, 0.3], [5.0, 0, 0, 0]]).tofile(scans / '0000000002.bin')
    write_calibration(root / DATE)


@pytest.fixture
def root(tmp_path):
    write_drive(tmp_path)
    (tmp_path / 'list.txt').write_text(f'{DRIVE} 2 l\n{DRIVE} 0000000001 r\n\n')
    return tmp_path


def read(root, **arguments) -> KITTIRawDataset:
    return KITTIRawDataset(**{**dict(data_root=str(root), ann_file='list.txt'), **arguments})


def test_triplets(root):
    dataset = read(root)
    entry = dataset.get_data_info(0)
    assert len(dataset) == 2
    assert entry['frame_paths'] == [
        str(root / DRIVE / f'image_02/data/000000000{i}.png') for i in (2, 1, 3)
    ]
    assert entry['intrinsics'].tolist() == [[FOCAL, 0, CENTRE[0]], [0, FOCAL, CENTRE[1]], [0, 0, 1]]
    assert entry['frame_ids'] == (-1, 1) and np.isnan(entry['source_poses']).all()
    assert 'image_03/data/0000000001' in dataset.get_data_info(1)['frame_paths'][0]


def test_stereo_pairs(root):
    entries = [read(root, frame_ids=('s',)).get_data_info(i) for i in range(2)]
    assert [entry['frame_paths'][1].split('/')[-3] for entry in entries] == ['image_03', 'image_02']
    assert [entry['source_poses'][0, 0, 3] for entry in entries] == pytest.approx([-0.1, 0.1])
    both = read(root, frame_ids=(-1, 's'), baseline=0.54).get_data_info(0)['source_poses']
    assert np.isnan(both[0]).all() and both[1, 0, 3] == pytest.approx(-0.54)


def test_stereo_sign_agrees_with_the_calibration(root):
    """The calibration says how far the right camera sees a point to the left of where the left one
    does.
    """
    left, right = (read_calibration(root / DATE, camera).velo_to_camera for camera in (2, 3))
    moved = right @ np.linalg.inv(left)
    assert moved[0, 3] == pytest.approx(-0.53) and np.allclose(moved[:3, :3], np.eye(3))


def test_images_as_jpg(tmp_path):
    write_drive(tmp_path, suffix='.jpg')
    (tmp_path / 'list.txt').write_text(f'{DRIVE} 2 l')
    assert read(tmp_path).get_data_info(0)['frame_paths'][0].endswith('0000000002.jpg')


def test_through_the_pipeline_of_the_config(root):
    dataset = DATASETS.build(
        dict(
            type='mmwcc.KITTIRawDataset',
            data_root=str(root),
            ann_file='list.txt',
            frame_ids=(),
            indices=[0],
            pipeline=[
                dict(type='mmwcc.LoadDepthFrames'),
                dict(type='mmwcc.LoadVelodyneDepth'),
                dict(type='mmwcc.ResizeDepthFrames', scale=(64, 32)),
                dict(type='mmwcc.PackDepthInputs'),
            ],
        )
    )
    packed = dataset[0]
    assert packed['inputs'].shape == (3, 32, 64) and packed['inputs'].unique().tolist() == [22]
    assert packed['data_samples'].gt_depth.shape == (HEIGHT, WIDTH)
    assert packed['data_samples'].gt_depth.count_nonzero() == 2


def test_laser_point_lands_where_it_belongs(root):
    """9.27 m ahead, 1 m to the left and 0.5 m down of the laser is (-0.94, 0.42, 9) for the left
    camera.
    """
    calibration = read_calibration(root / DATE, 2)
    np.testing.assert_allclose(
        (calibration.velo_to_camera @ [9.27, 1.0, -0.5, 1])[:3], [-0.94, 0.42, 9.0], atol=1e-9
    )
    points = np.array([[9.27, 1.0, -0.5]])
    column, row = round(19 + 30 * -0.94 / 9) - 1, round(9 + 30 * 0.42 / 9) - 1
    depth = laser_depth(points, calibration.velo_to_camera, calibration.intrinsics, (HEIGHT, WIDTH))
    assert depth[row, column] == pytest.approx(9.27) and depth.sum() == depth[row, column]
    depth = laser_depth(
        points, calibration.velo_to_camera, calibration.intrinsics, (HEIGHT, WIDTH), False
    )
    assert depth[row, column] == pytest.approx(9.0)


def test_nearest_point_remains_and_what_lies_outside_is_dropped(root):
    calibration = read_calibration(root / DATE, 2)

    def distances(*points):
        depth = laser_depth(
            np.array(points), calibration.velo_to_camera, calibration.intrinsics, (HEIGHT, WIDTH)
        )
        return depth[depth > 0].tolist()

    assert distances([30.25, 0, 0], [30.0, 0, 0], [30.125, 0, 0]) == [30.0]
    assert distances([-5.0, 0, 0], [0.125, 0, 0], [5.0, 90.0, 0], [5.0, 0, 90.0]) == []


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        (f'{DRIVE} 2', r'must be "date/drive frame l\|r", got .* in line 1'),
        (f'{DRIVE} two l', 'in line 1'),
        (f'{DRIVE} 2 m', 'in line 1'),
        (f'{DRIVE}/image_02/data/0000000002.png a b', 'not paths of images'),
        ('', 'ann_file must name frames, got none'),
    ],
)
def test_malformed_lists(root, line, message):
    (root / 'list.txt').write_text(line)
    with pytest.raises(ValueError, match=message):
        read(root)


def test_missing_files(root):
    with pytest.raises(
        FileNotFoundError, match=r'ann_file must be a list of frames, got .*other.txt'
    ):
        read(root, ann_file='other.txt')
    (root / 'list.txt').write_text(f'{DRIVE} 4 l')
    with pytest.raises(
        FileNotFoundError, match=rf'frame 5 \(l\) of {DRIVE} must exist for the line "{DRIVE} 4 l"'
    ):
        read(root)
    (root / 'list.txt').write_text(f'{DATE}/{DATE}_drive_0099_sync 4 l')
    with pytest.raises(
        FileNotFoundError,
        match='data_root must hold the drives of the list, got none in .*0099_sync',
    ):
        read(root)


@pytest.mark.parametrize(
    ('file', 'content', 'error', 'message'),
    [
        (
            'calib_velo_to_cam.txt',
            None,
            FileNotFoundError,
            'every date must have its calibration, got no .*velo_to_cam',
        ),
        (
            'calib_velo_to_cam.txt',
            'R: 1 2 3\nT: 0 0 0',
            ValueError,
            'R must hold 9 numbers, got 3 in',
        ),
        ('calib_velo_to_cam.txt', f'R: {AXES}\nT: a b c', ValueError, 'T must hold 3 numbers'),
        (
            'calib_cam_to_cam.txt',
            'R_rect_00: 1 0 0 0 1 0 0 0 1',
            ValueError,
            'must have P_rect_02, got none in',
        ),
    ],
)
def test_malformed_calibration(root, file, content, error, message):
    path = root / DATE / file
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(error, match=message):
        read(root)


def test_scans(root):
    entry = read(root, frame_ids=()).get_data_info(0)
    entry['frames'] = [np.zeros((HEIGHT, WIDTH, 3), np.uint8)]
    assert LoadVelodyneDepth()(dict(entry))['gt_depth'].max() == pytest.approx(9.27)
    scan = root / DRIVE / 'velodyne_points/data/0000000002.bin'
    scan.write_bytes(scan.read_bytes()[:-4])
    with pytest.raises(ValueError, match='must be made of points of four float32, got 7 numbers'):
        LoadVelodyneDepth()(dict(entry))
    scan.unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r'velodyne_path must be a scan, got .*0000000002.bin, which does not',
    ):
        LoadVelodyneDepth()(dict(entry))


def test_unknown_frames():
    with pytest.raises(
        ValueError, match=r"frame_ids must be whole numbers other than 0 or 's', got \('r',\)"
    ):
        KITTIRawDataset(frame_ids=('r',))
