"""Drives through synthetic streets: poses and depth explain what the frames show."""

import numpy as np
import pytest
import torch

pytest.importorskip('mmengine')

from mmengine.registry import DATASETS

from mmwcc.datasets import Camera, SyntheticStreetSequence
from mmwcc.datasets.street.sequence import relative_pose, street_drive
from mmwcc.models.depth.geometry import warp
from mmwcc.models.depth.losses import photometric_error


@pytest.fixture(scope='module')
def dataset():
    return SyntheticStreetSequence(
        length=3, img_scale=(96, 48), frame_ids=(-1, 1, 2), frames_per_street=2
    )


def test_entry(dataset):
    entry = dataset.get_data_info(1)
    assert [frame.shape for frame in entry['frames']] == [(48, 96, 3)] * 4
    assert entry['frames'][0].dtype == np.uint8 and entry['gt_depth'].dtype == np.float32
    assert entry['intrinsics'].tolist() == [
        [pytest.approx(76.8), 0, 47.5],
        [0, pytest.approx(76.8), 23.5],
        [0, 0, 1],
    ]
    depth = entry['gt_depth']
    assert (depth >= 0).all() and depth.max() > 30 and 1 < depth[-1].min() < 10
    assert entry['frame_ids'] == (-1, 1, 2) and entry['source_poses'].dtype == np.float32


def test_frames_are_those_of_neighbours(dataset):
    first, second, other = (dataset.get_data_info(i) for i in range(3))
    assert (first['frames'][2] == second['frames'][0]).all() and (
        second['frames'][1] == first['frames'][0]
    ).all()
    assert (first['frames'][0] != other['frames'][0]).any()
    first['frames'][0][:] = 0  # what a pipeline writes does not reach the cache
    assert dataset.get_data_info(0)['frames'][0].any()


def test_true_depth_and_pose_explain_the_next_frame(dataset):
    """The photometric error after warping is far below that of the frames as they are."""
    errors = []
    for i in range(3):
        entry = dataset.get_data_info(i)
        frames = torch.from_numpy(np.stack(entry['frames']).transpose(0, 3, 1, 2)).float() / 255
        depth = torch.from_numpy(np.where(entry['gt_depth'] > 0, entry['gt_depth'], 800))[
            None, None
        ]
        camera = torch.from_numpy(entry['intrinsics'])[None]
        for source, pose in zip(frames[1:], entry['source_poses'], strict=True):
            warped = warp(source[None], depth, torch.from_numpy(pose)[None], camera)
            errors.append(
                [photometric_error(image, frames[:1]).mean() for image in (warped, source[None])]
            )
    warped, still = np.mean(errors, 0)
    assert warped < 0.5 * still


def test_wrong_pose_explains_nothing(dataset):
    entry = dataset.get_data_info(0)
    frames = torch.from_numpy(np.stack(entry['frames']).transpose(0, 3, 1, 2)).float() / 255
    depth = torch.from_numpy(np.where(entry['gt_depth'] > 0, entry['gt_depth'], 800))[None, None]
    camera = torch.from_numpy(entry['intrinsics'])[None]
    right, wrong = (
        warp(frames[2][None], depth, torch.from_numpy(pose)[None], camera)
        for pose in (entry['source_poses'][1], np.linalg.inv(entry['source_poses'][1]))
    )
    assert (
        photometric_error(right, frames[:1]).mean()
        < 0.6 * photometric_error(wrong, frames[:1]).mean()
    )


def test_relative_pose_moves_points_between_cameras():
    first, second = Camera((1.0, 2.0, 1.5), yaw=0.2), Camera((1.3, 2.6, 1.6), yaw=-0.1, pitch=0.05)
    point = np.array([[0.5, 9.0, 2.0]])
    moved = relative_pose(first, second) @ np.append(first.to_camera(point)[0], 1)
    np.testing.assert_allclose(moved[:3], second.to_camera(point)[0], atol=1e-5)


def test_drive_is_steady():
    places = np.array([street_drive(0, 5, time).position for time in range(-2, 6)])
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    assert np.ptp(steps) < 1e-9 and 0.3 < steps[0] < 0.7
    yaws = np.diff([street_drive(0, 5, time).yaw for time in range(-2, 6)])
    assert np.ptp(yaws) < 1e-9


def test_splits_differ_and_runs_agree():
    def frame(**changes):
        data = SyntheticStreetSequence(
            **{**dict(length=1, img_scale=(32, 32), frame_ids=()), **changes}
        )
        return data.get_data_info(0)['frames'][0]

    assert (
        (frame() == frame()).all()
        and (frame() != frame(split='val')).any()
        and (frame() != frame(seed=1)).any()
    )


def test_through_a_pipeline():
    dataset = DATASETS.build(
        dict(
            type='mmwcc.SyntheticStreetSequence',
            length=1,
            img_scale=(32, 32),
            pipeline=[
                dict(type='mmwcc.RandomFlipDepthFrames'),
                dict(type='mmwcc.DepthColorJitter'),
                dict(type='mmwcc.PackDepthInputs'),
            ],
        )
    )
    packed = dataset[0]
    sample = packed['data_samples']
    assert packed['inputs'].shape == (3, 3, 32, 32) and sample.frame_ids == (-1, 1)
    assert sample.gt_depth.shape == (32, 32) and sample.source_poses.shape == (2, 4, 4)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(length=0), 'length must be at least 1, got 0'),
        (dict(seed=-1), 'seed must be at least 0, got -1'),
        (dict(frames_per_street=0), 'frames_per_street must be at least 1, got 0'),
        (dict(img_scale=(192, 4)), r'img_scale must be \(width, height\), .* got \(192, 4\)'),
        (dict(frame_ids=(0, 1)), r'frame_ids must be whole numbers other than 0, got \(0, 1\)'),
        (dict(frame_ids=('s',)), 'frame_ids must be whole numbers'),
        (dict(split='dev'), "split must be one of .* got 'dev'"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=f'SyntheticStreetSequence: {message}'):
        SyntheticStreetSequence(**arguments)
