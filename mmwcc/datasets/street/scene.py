"""Images of synthetic streets with exact labels, depth and boxes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .classes import BOX_CLASSES, BOX_LABELS, CLASSES
from .geometry import Camera
from .ground import ground_labels
from .raster import FIRST_ID, GROUND_ID, GBuffer, rasterize
from .shading import shade
from .world import StreetWorld

__all__ = [
    'BOX_CLASSES',
    'CLASSES',
    'Camera',
    'StreetScene',
    'StreetWorld',
    'render',
    'render_street',
]

# A box is dropped if less than this share of its object is visible, or if it is smaller than this
# many pixels.
MIN_VISIBLE, MIN_LONG_SIDE, MIN_SHORT_SIDE = 0.35, 6, 3


@dataclass(frozen=True)
class StreetScene:
    """One image and its exact ground truth.

    Attributes:
        image (np.ndarray): (H, W, 3) uint8, BGR.
        labels (np.ndarray): (H, W) uint8, indices into ``CLASSES``.
        depth (np.ndarray): (H, W) float32 metres along the optical axis; the sky is inf.
        boxes (np.ndarray): (n, 4) float32 x1, y1, x2, y2 in pixel edges within the image: a box
            covers the columns x1 to x2 - 1.
        box_labels (np.ndarray): (n,) int64, indices into ``BOX_CLASSES``.
    """

    image: np.ndarray
    labels: np.ndarray
    depth: np.ndarray
    boxes: np.ndarray
    box_labels: np.ndarray


def render(
    world: StreetWorld, camera: Camera, size: tuple[int, int], noise_seed: int = 0
) -> StreetScene:
    """Render ``world`` as seen by ``camera``.

    Args:
        world: The street.
        camera: The camera.
        size: Height and width in pixels, each at least 8.
        noise_seed: Seed of the sensor noise; the same seed gives the same noise. Defaults to 0.

    Returns:
        Image, labels, depth and boxes.

    Raises:
        ValueError: If ``size`` is not two whole numbers of at least 8.

    Example:
        >>> world = StreetWorld.sample(seed=0, index=0)
        >>> render(world, world.viewpoint, (48, 64)).image.shape
        (48, 64, 3)
    """
    if len(size) != 2 or not all(isinstance(v, (int, np.integer)) and v >= 8 for v in size):
        raise ValueError(
            f'render: size must be (height, width), two whole numbers of at least 8, got {size}. '
            'Use for example (128, 192).'
        )
    size = (int(size[0]), int(size[1]))
    buffer = rasterize(world, camera, size)
    labels = _labels(world, camera, buffer)
    rng = np.random.Generator(np.random.PCG64(noise_seed))
    image = shade(world, camera, buffer, labels, rng)
    with np.errstate(divide='ignore'):
        depth = np.float32(1) / buffer.inverse_depth
    return StreetScene(image, labels, depth, *_boxes(world, buffer))


def render_street(seed: int, index: int, size: tuple[int, int]) -> StreetScene:
    """Render street number ``index`` of the collection ``seed`` from its own viewpoint.

    ``size`` is (H, W).

    Example:
        >>> render_street(0, 0, (48, 64)).labels.dtype
        dtype('uint8')
    """
    world = StreetWorld.sample(seed, index)
    return render(world, world.viewpoint, size, noise_seed=index)


def _labels(world: StreetWorld, camera: Camera, buffer: GBuffer) -> np.ndarray:
    table = np.concatenate([np.zeros(FIRST_ID, np.uint8), world.surfaces.label])
    labels = table[buffer.surface]
    rows, columns = np.nonzero(buffer.surface == GROUND_ID)
    xs, ys = camera.grid(labels.shape)
    axes = camera.axes()
    depth = 1 / buffer.inverse_depth[rows, columns]
    x, y = (
        camera.position[k] + depth * (xs[columns] * axes[0, k] + ys[rows] * axes[1, k] + axes[2, k])
        for k in (0, 1)
    )
    labels[rows, columns] = ground_labels(world.layout, x, y)
    return labels


def _boxes(world: StreetWorld, buffer: GBuffer) -> tuple[np.ndarray, np.ndarray]:
    owners = np.concatenate([np.full(FIRST_ID, len(world.object_labels)), world.surfaces.owner])[
        buffer.surface
    ]
    visible = np.bincount(owners.ravel(), minlength=len(world.object_labels) + 1)
    boxes, labels = [], []
    for owner, outline in sorted(buffer.silhouettes.items()):
        x, y, width, height = cv2.boundingRect(outline)
        if max(width, height) < MIN_LONG_SIDE or min(width, height) < MIN_SHORT_SIDE:
            continue
        if visible[owner] < MIN_VISIBLE * cv2.countNonZero(outline):
            continue
        boxes.append((x, y, x + width, y + height))
        labels.append(BOX_LABELS[int(world.object_labels[owner])])
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64)
