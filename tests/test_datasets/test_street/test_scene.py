import math

import numpy as np
import pytest

from mmwcc.datasets.street.classes import BUILDING, CAR, POLE, ROAD, SKY
from mmwcc.datasets.street.geometry import PAINT, Frame, SurfaceBuilder
from mmwcc.datasets.street.scene import (
    BOX_CLASSES,
    CLASSES,
    Camera,
    StreetWorld,
    render,
    render_street,
)

SIZE = (96, 144)
CAMERA = Camera((0.0, 0.0, 1.5))


@pytest.fixture(scope='module')
def scenes():
    return [render_street(0, i, SIZE) for i in range(8)]


def make_world(*boxes):
    """Return a street with nothing but boxes (label, left, right, near, far, height)."""
    builder = SurfaceBuilder()
    for label, left, right, near, far, height in boxes:
        builder.begin(label, ((left + right) / 2, (near + far) / 2))
        outline = (left, right, near, far)
        builder.prism(Frame(0.0, 0.0), (*outline, 0.0), (*outline, height), PAINT, (0.3, 0.3, 0.3))
    sampled = StreetWorld.sample(0, 0)
    return StreetWorld(sampled.layout, sampled.weather, CAMERA, builder)


def test_same_number_gives_the_same_scene_bit_for_bit():
    state = np.random.get_state()[1].copy()
    first, second = render_street(3, 5, SIZE), render_street(3, 5, SIZE)
    for name in ('image', 'labels', 'depth', 'boxes', 'box_labels'):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()
    np.testing.assert_array_equal(np.random.get_state()[1], state)


@pytest.mark.parametrize(
    ('seed', 'index', 'objects', 'polygons', 'ellipsoids', 'sums'),
    [
        (0, 0, [0, 30, 15, 0, 0, 21, 7, 6, 14], 872, 402, (249181.486, 824.238)),
        (3, 5, [0, 27, 15, 0, 0, 15, 6, 8, 8], 910, 267, (250067.526, 829.208)),
    ],
)
def test_a_number_stands_for_one_street_in_every_version(
    seed, index, objects, polygons, ellipsoids, sums
):
    """Results that were measured on streets are only comparable if the streets stay the same."""
    world = StreetWorld.sample(seed, index)
    assert np.bincount(world.object_labels, minlength=len(CLASSES)).tolist() == objects
    surfaces = world.surfaces
    assert (surfaces.num_polygons, len(surfaces.centres)) == (polygons, ellipsoids)
    assert (surfaces.vertices.sum(), surfaces.color.sum()) == pytest.approx(sums, abs=2e-3)


def test_other_seed_or_index_gives_another_scene():
    scene = render_street(3, 5, SIZE)
    for other in (render_street(4, 5, SIZE), render_street(3, 6, SIZE), render_street(5, 3, SIZE)):
        assert (scene.labels != other.labels).mean() > 0.02


@pytest.mark.parametrize('size', [(8, 8), (33, 65), (97, 131), (128, 192)])
def test_shapes_and_types_at_any_size(size):
    scene = render_street(0, 1, size)
    assert scene.image.shape == (*size, 3) and scene.image.dtype == np.uint8
    assert scene.labels.shape == size and scene.labels.dtype == np.uint8
    assert scene.depth.shape == size and scene.depth.dtype == np.float32
    assert scene.boxes.shape == (len(scene.box_labels), 4) and scene.boxes.dtype == np.float32
    assert scene.box_labels.dtype == np.int64


@pytest.mark.parametrize('size', [(4, 64), (64, 7), (64,), (64.0, 64)])
def test_bad_size_is_refused(size):
    with pytest.raises(ValueError, match='render: size must be'):
        render_street(0, 0, size)


def test_every_class_appears_and_none_dominates(scenes):
    counts = sum(np.bincount(scene.labels.ravel(), minlength=len(CLASSES)) for scene in scenes)
    share = counts / counts.sum()
    assert len(share) == len(CLASSES)
    assert share.min() > 0.002 and share.max() < 0.5


def test_classes_are_not_told_by_colour_alone(scenes):
    images = np.concatenate([s.image.reshape(-1, 3) for s in scenes]).astype(np.float64)
    labels = np.concatenate([s.labels.ravel() for s in scenes]).astype(np.int64)
    means = np.stack([images[labels == k].mean(0) for k in range(len(CLASSES))])
    nearest = ((images[:, None] - means) ** 2).sum(2).argmin(1)
    table = np.bincount(labels * len(CLASSES) + nearest, minlength=len(CLASSES) ** 2).reshape(
        len(CLASSES), -1
    )
    hits = table.diagonal()
    assert (hits / (table.sum(0) + table.sum(1) - hits)).mean() < 0.35


def test_sky_and_only_sky_is_infinitely_far(scenes):
    for scene in scenes:
        np.testing.assert_array_equal(np.isinf(scene.depth), scene.labels == SKY)
        assert scene.depth.min() > 0.4


def test_ground_has_the_depth_of_its_plane():
    camera = Camera((0.3, 0.0, 1.8), yaw=0.1, pitch=-0.07, focal=0.8)
    world = StreetWorld.sample(2, 4)
    scene = render(world, camera, SIZE)
    rows = (np.arange(SIZE[0]) - (SIZE[0] - 1) / 2) / (0.8 * SIZE[1])
    plane = 1.8 / (rows * math.cos(camera.pitch) - math.sin(camera.pitch))
    ground = (scene.labels == ROAD) | (scene.labels == 4)
    expected = np.broadcast_to(plane[:, None], SIZE)
    np.testing.assert_allclose(scene.depth[ground], expected[ground], rtol=2e-5)
    # Everything else stands in front of the ground.
    below = (expected > 0) & ~ground & (scene.labels != SKY)
    assert (scene.depth[below] <= expected[below] * (1 + 2e-5)).all()


def test_nearer_object_wins_whatever_the_order():
    far, near = (BUILDING, -6.0, 6.0, 20.0, 30.0, 9.0), (CAR, -1.0, 1.0, 8.0, 12.0, 1.4)
    first, second = (
        render(make_world(*order), CAMERA, SIZE) for order in ((far, near), (near, far))
    )
    np.testing.assert_array_equal(first.labels, second.labels)
    row, column = SIZE[0] // 2 + 4, SIZE[1] // 2
    assert first.labels[row, column] == CAR and first.depth[row, column] == pytest.approx(
        8.0, rel=1e-5
    )
    assert first.labels[row - 14, column] == BUILDING
    assert first.depth[row - 14, column] == pytest.approx(20.0, rel=1e-5)


def test_box_is_where_the_camera_projects_the_object():
    scene = render(make_world((CAR, -1.0, 1.0, 8.0, 12.0, 1.4)), CAMERA, SIZE)
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (8, 12) for z in (0, 1.4)], np.float64)
    pixels = CAMERA.project(corners, SIZE)[:, :2]
    assert scene.box_labels.tolist() == [BOX_CLASSES.index('car')]
    np.testing.assert_allclose(scene.boxes[0], [*pixels.min(0), *pixels.max(0) + 1], atol=1.0)
    rows, columns = np.nonzero(scene.labels == CAR)
    assert scene.boxes[0].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize('hidden, count', [(0.0, 1), (0.4, 1), (0.8, 0)])
def test_mostly_hidden_objects_have_no_box(hidden, count):
    # The wall stands at half the distance, so it covers twice its width of the car's.
    wall = (POLE, -3.0, -0.5 + hidden, 4.0, 4.1, 3.0)
    scene = render(make_world((CAR, -1.0, 1.0, 8.0, 8.5, 1.4), wall), CAMERA, SIZE)
    assert len(scene.boxes) == count


def test_tiny_objects_have_no_box():
    assert len(render(make_world((CAR, -1.0, 1.0, 90.0, 92.0, 1.4)), CAMERA, SIZE).boxes) == 0


def test_boxes_lie_in_the_image_and_hold_their_class(scenes):
    label_of = [CLASSES.index(name) for name in BOX_CLASSES]
    total = 0
    for scene in scenes:
        for (x0, y0, x1, y1), kind in zip(scene.boxes.astype(int), scene.box_labels, strict=True):
            assert 0 <= x0 < x1 <= SIZE[1] and 0 <= y0 < y1 <= SIZE[0]
            assert (scene.labels[y0:y1, x0:x1] == label_of[kind]).any()
            total += 1
    assert total > 30


def test_moving_the_camera_keeps_the_world():
    """A point of the road seen from two places has the same class and fits both depths."""
    world = StreetWorld.sample(0, 7)
    first = Camera((0.0, 0.0, 1.6))
    second = Camera((0.4, 1.5, 1.7), yaw=0.05)
    a, b = render(world, first, SIZE), render(world, second, SIZE)
    rows, columns = np.nonzero(a.labels != SKY)
    xs, ys = first.grid(SIZE)
    depth = a.depth[rows, columns].astype(np.float64)
    rays = np.stack([xs[columns], ys[rows], np.ones(len(rows))], 1) * depth[:, None]
    points = rays @ first.axes() + first.position
    pixels = second.project(points, SIZE)
    column, row = np.rint(pixels[:, :2]).astype(int).T
    inside = (pixels[:, 2] > 1) & (column >= 0) & (column < SIZE[1]) & (row >= 0) & (row < SIZE[0])
    seen = b.depth[row[inside], column[inside]]
    same = np.abs(seen / pixels[inside, 2] - 1) < 0.05
    assert inside.mean() > 0.6 and same.mean() > 0.75
    agree = a.labels[rows, columns][inside][same] == b.labels[row[inside], column[inside]][same]
    assert agree.mean() > 0.95


def test_noise_belongs_to_the_sensor_only():
    world = StreetWorld.sample(0, 2)
    a, b = (render(world, world.viewpoint, SIZE, noise_seed=seed) for seed in (0, 1))
    assert (a.image != b.image).any()
    np.testing.assert_array_equal(a.labels, b.labels)


@pytest.mark.parametrize(
    'kwargs, words',
    [
        (dict(focal=0.0), 'focal must be positive'),
        (dict(position=(0.0, 0.0, 0.0)), 'above the ground'),
    ],
)
def test_bad_camera_is_refused(kwargs, words):
    with pytest.raises(ValueError, match=words):
        Camera(**{'position': (0.0, 0.0, 1.5), **kwargs})
