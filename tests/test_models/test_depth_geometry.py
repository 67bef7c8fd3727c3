"""mmwcc/models/depth/geometry.py, against values by hand."""

import math

import pytest
import torch

pytest.importorskip('mmengine')

from toy_depth import HEIGHT, WIDTH, intrinsics, translation

from mmwcc.models.depth.geometry import backproject, disp_to_depth, pose_matrix, project, warp


def test_disparity_is_linear_in_inverse_depth():
    disp = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    expected = torch.tensor([100.0, 1 / (0.01 + 0.25 * 9.99), 0.1], dtype=torch.float64)
    torch.testing.assert_close(disp_to_depth(disp, 0.1, 100.0), expected)


def test_pose_matrix_rotates_by_the_right_hand_rule():
    angle = 0.3
    pose = pose_matrix(torch.tensor([[0.0, angle, 0.0]]), torch.tensor([[1.0, 2.0, 3.0]]))[0]
    expected = torch.tensor(
        [
            [math.cos(angle), 0, math.sin(angle), 1],
            [0, 1, 0, 2],
            [-math.sin(angle), 0, math.cos(angle), 3],
            [0, 0, 0, 1],
        ]
    )
    torch.testing.assert_close(pose, expected)


def test_inverse_pose():
    vector, shift = torch.randn(3, 3), torch.randn(3, 3)
    product = pose_matrix(vector, shift) @ pose_matrix(vector, shift, invert=True)
    torch.testing.assert_close(product, torch.eye(4).expand(3, 4, 4), atol=1e-5, rtol=0)


def test_pose_has_a_gradient_at_rest():
    vector, shift = torch.zeros(1, 3, requires_grad=True), torch.zeros(1, 3, requires_grad=True)
    pose_matrix(vector, shift, invert=True)[0, 0, 2].backward()
    assert vector.grad.tolist() == [[0.0, -1.0, 0.0]]


def test_points_project_to_their_own_pixels():
    camera = intrinsics(height=5, width=7)[None].double()
    depth = torch.rand(1, 1, 5, 7, dtype=torch.float64) + 1
    pixels = project(backproject(depth, camera), camera, torch.eye(4, dtype=torch.float64)[None])
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing='ij')
    torch.testing.assert_close(pixels[0], torch.stack([x, y], 2).double())


def test_pixel_of_a_known_point():
    """A point 2 m ahead on the axis, seen by a camera 0.5 m to the right of the first."""
    point = torch.tensor([0.0, 0.0, 2.0]).reshape(1, 3, 1, 1)
    pixel = project(point, intrinsics(40.0)[None], translation(x=-0.5))
    torch.testing.assert_close(
        pixel.flatten(), torch.tensor([(WIDTH - 1) / 2 - 10, (HEIGHT - 1) / 2])
    )


@pytest.mark.parametrize(('shift', 'columns', 'rows'), [(0.5, 5, 0), (-0.2, -2, 0), (0.0, 0, 3)])
def test_warp_of_a_wall_is_a_shift(shift, columns, rows):
    """At depth 4 and focal length 40, 0.1 m are one pixel."""
    source = torch.rand(1, 3, 20, 30, dtype=torch.float64)
    depth = torch.full((1, 1, 20, 30), 4.0, dtype=torch.float64)
    pose = translation(x=shift, y=rows / 10).double()
    warped = warp(source, depth, pose, intrinsics(40.0, 20, 30)[None])
    expected = source[..., rows:, max(columns, 0) : 30 + min(columns, 0)]
    torch.testing.assert_close(
        warped[..., : 20 - rows, max(-columns, 0) : 30 - max(columns, 0)],
        expected,
        atol=1e-6,
        rtol=0,
    )


def test_warp_repeats_the_border():
    source = torch.arange(6.0).expand(1, 1, 4, 6)
    warped = warp(source, torch.ones(1, 1, 4, 6), translation(x=100.0), intrinsics(1.0, 4, 6)[None])
    assert warped.unique().tolist() == [5.0]


def test_warp_is_differentiable_in_depth_and_pose():
    torch.manual_seed(3)
    source = torch.rand(1, 2, 5, 6, dtype=torch.float64)
    depth = torch.rand(1, 1, 5, 6, dtype=torch.float64) + 2
    motion = 0.01 * torch.randn(2, 1, 3, dtype=torch.float64)
    camera = intrinsics(5.0, 5, 6)[None].double()

    def warped(depth, vector, shift):
        return warp(source, depth, pose_matrix(vector, shift), camera)

    assert torch.autograd.gradcheck(warped, [t.clone().requires_grad_() for t in (depth, *motion)])


def test_poses_keep_their_precision_under_autocast():
    vector, shift = torch.randn(2, 3), torch.randn(2, 3)
    expected = pose_matrix(vector.double(), shift.double(), invert=True)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        torch.testing.assert_close(
            pose_matrix(vector, shift, invert=True), expected.float(), atol=1e-5, rtol=0
        )


def test_warp_keeps_its_precision_under_autocast():
    source, depth = torch.rand(1, 3, 20, 30), torch.rand(1, 1, 20, 30) + 2
    pose, camera = translation(0.1, 0.0, 0.2), intrinsics(40.0, 20, 30)[None]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        warped, exact = (
            warp(source, depth, pose, camera),
            warp(source, depth.double(), pose, camera),
        )
    torch.testing.assert_close(warped, exact.float(), atol=1e-5, rtol=0)
