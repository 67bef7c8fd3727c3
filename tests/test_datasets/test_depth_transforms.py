"""Steps of depth pipelines: images, cameras and motions change together."""

import cv2
import numpy as np
import pytest
import torch

from mmwcc.datasets import (
    DepthColorJitter,
    LoadDepthFrames,
    PackDepthInputs,
    RandomFlipDepthFrames,
    ResizeDepthFrames,
)
from mmwcc.datasets.depth_transforms import adjust_colors
from mmwcc.models.depth.geometry import backproject, project


def entry(height=12, width=20, sources=2) -> dict:
    rng = np.random.default_rng(0)
    poses = np.tile(np.eye(4, dtype=np.float32), (sources, 1, 1))
    poses[:, 0, 3] = 0.3
    return dict(
        frames=[
            rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(1 + sources)
        ],
        intrinsics=np.float32([[15, 0, 9], [0, 15, 6], [0, 0, 1]]),
        source_poses=poses,
        gt_depth=rng.uniform(1, 9, (height, width)).astype(np.float32),
        frame_ids=(-1, 1)[:sources],
    )


def where(results: dict, point: np.ndarray) -> np.ndarray:
    """Return the pixel at which the camera of ``results`` sees a point."""
    x, y, z = results['intrinsics'] @ point
    return np.array([x / z, y / z])


def test_load(tmp_path):
    frames = entry()['frames']
    paths = [str(tmp_path / f'{i}.png') for i in range(3)]
    for path, frame in zip(paths, frames, strict=True):
        cv2.imwrite(path, frame)
    out = LoadDepthFrames()(dict(frame_paths=paths))
    assert all((a == b).all() for a, b in zip(out['frames'], frames, strict=True))
    assert out['ori_shape'] == (12, 20) and out['img_path'] == paths[0]
    with pytest.raises(
        FileNotFoundError, match=r'must be images that can be read, got .*missing.png'
    ):
        LoadDepthFrames()(dict(frame_paths=[paths[0], str(tmp_path / 'missing.png')]))
    cv2.imwrite(paths[1], frames[1][:5])
    with pytest.raises(
        ValueError, match=r'must have one size, got \[\(5, 20, 3\), \(12, 20, 3\)\]'
    ):
        LoadDepthFrames()(dict(frame_paths=paths))


def test_resize_keeps_edges_where_they_are():
    """The edges of an image, half a pixel outside of the first and the last, are seen in the same
    directions.
    """
    results = entry()
    edges = [
        np.linalg.inv(results['intrinsics']) @ [x, y, 1] for x, y in ((-0.5, -0.5), (19.5, 11.5))
    ]
    out = ResizeDepthFrames((10, 4))(results)
    assert (
        out['frames'][2].shape == (4, 10, 3)
        and out['img_shape'] == (4, 10)
        and out['gt_depth'].shape == (12, 20)
    )
    np.testing.assert_allclose(
        [where(out, edge) for edge in edges], [[-0.5, -0.5], [9.5, 3.5]], atol=1e-5
    )


def test_flip_mirrors_everything():
    before, after = entry(), RandomFlipDepthFrames(prob=1.0)(entry())
    assert all(
        (a == b[:, ::-1]).all() for a, b in zip(after['frames'], before['frames'], strict=True)
    )
    assert (after['gt_depth'] == before['gt_depth'][:, ::-1]).all()
    point = np.array([0.7, -0.2, 4.0])
    mirrored = point * [-1, 1, 1]
    x, y = where(before, point)
    np.testing.assert_allclose(where(after, mirrored), [19 - x, y], atol=1e-5)
    pose = before['source_poses'][0]
    moved, moved_mirrored = (
        p[:3, :3] @ q + p[:3, 3] for p, q in ((pose, point), (after['source_poses'][0], mirrored))
    )
    np.testing.assert_allclose(moved_mirrored, moved * [-1, 1, 1], atol=1e-6)


def test_flip_commutes_with_projection():
    """Columns that mirrored pixels of mirrored depth project to are the mirrored ones."""

    def columns(results):
        depth, camera, poses = (
            torch.from_numpy(results[key]) for key in ('gt_depth', 'intrinsics', 'source_poses')
        )
        return project(backproject(depth[None, None], camera[None]), camera[None], poses[:1])[
            0, ..., 0
        ]

    torch.testing.assert_close(
        columns(RandomFlipDepthFrames(1.0)(entry())).flip(1), 19 - columns(entry())
    )


def test_flip_sometimes():
    np.random.seed(0)
    flipped = sum(
        (RandomFlipDepthFrames()(entry())['intrinsics'] != entry()['intrinsics']).any()
        for _ in range(200)
    )
    assert 70 < flipped < 130
    assert (RandomFlipDepthFrames(0.0)(entry())['frames'][0] == entry()['frames'][0]).all()


def test_jitter_changes_what_networks_see_and_all_frames_alike():
    np.random.seed(0)
    results = entry()
    results['frames'] = [results['frames'][0]] * 3
    out = DepthColorJitter(prob=1.0)(results)
    assert (out['frames'][0] == entry()['frames'][0]).all() and (
        out['aug_frames'][0] != out['frames'][0]
    ).any()
    assert all((frame == out['aug_frames'][0]).all() for frame in out['aug_frames'])
    assert DepthColorJitter(prob=0.0)(entry())['aug_frames'][1] is not None


def test_color_changes_by_hand():
    grey, color = np.full((2, 2, 3), 100, np.uint8), np.full((1, 1, 3), (0, 0, 200), np.uint8)
    two = np.array([[[50] * 3, [150] * 3]], np.uint8)
    assert adjust_colors(grey, [('brightness', -0.2)]).ravel()[0] == 80
    assert adjust_colors(two, [('contrast', 0.2)])[0, :, 0].tolist() == [40, 160]
    assert (adjust_colors(grey, [('saturation', 0.2), ('hue', 0.1)]) == 100).all()
    assert adjust_colors(color, [('hue', 1 / 3)]).ravel().tolist() == [0, 200, 0]
    assert adjust_colors(color, [('saturation', -0.1)]).ravel().tolist() == [
        6,
        6,
        186,
    ]  # grey is 0.299 x 200 = 59.8
    assert (
        adjust_colors(
            color, [(name, 0.0) for name in ('brightness', 'contrast', 'saturation', 'hue')]
        )
        == color
    ).all()


def test_pack():
    results = entry()
    results['aug_frames'] = [frame // 2 for frame in results['frames']]
    packed = PackDepthInputs()(results)
    sample = packed['data_samples']
    assert packed['inputs'].shape == (3, 3, 12, 20) and packed['inputs'].dtype == torch.uint8
    torch.testing.assert_close(sample.frames // 2, packed['inputs'])
    assert sample.frames[1, 2, 3, 4] == results['frames'][1][3, 4, 2] and sample.frame_ids == (
        -1,
        1,
    )
    single = PackDepthInputs()({**entry(sources=0)})
    assert single['inputs'].shape == (3, 12, 20) and 'frames' not in single['data_samples']
    with pytest.raises(KeyError, match='the entry must have frames, got .*LoadDepthFrames'):
        PackDepthInputs()(dict(img=1))


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (
            lambda: ResizeDepthFrames((640,)),
            r'ResizeDepthFrames: scale must be \(width, height\), got \(640,\)',
        ),
        (
            lambda: RandomFlipDepthFrames(1.5),
            r'RandomFlipDepthFrames: prob must be in \[0, 1\], got 1.5',
        ),
        (lambda: DepthColorJitter(hue=2.0), r'DepthColorJitter: hue must be in \[0, 1\], got 2.0'),
    ],
)
def test_refuses(build, message):
    with pytest.raises(ValueError, match=message):
        build()
