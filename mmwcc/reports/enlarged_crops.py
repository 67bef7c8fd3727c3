"""Show how super-resolution networks render a detail of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mmwcc.diagnostics import fit_titles

__all__ = ['check_crop', 'plot_enlarged_crops']


def check_crop(crop: Sequence[int], size: Sequence[int]) -> None:
    """Reject a crop that is empty or not completely inside an image.

    Args:
        crop: Left, top, width and height in pixels.
        size: Height and width of the image.

    Raises:
        ValueError: If the crop is empty or not inside the image.
    """
    left, top, width, height = crop
    if (
        min(left, top) < 0
        or min(width, height) < 1
        or left + width > size[1]
        or top + height > size[0]
    ):
        raise ValueError(
            f'plot_enlarged_crops: crop must be left, top, width and height inside an image of '
            f'{size[1]} x {size[0]} pixels, got {tuple(crop)}. Use a smaller one.'
        )


def plot_enlarged_crops(
    original: np.ndarray, panels: Mapping[str, np.ndarray], crop: Sequence[int]
):
    """Draw an image with a frame around a detail, and next to it that detail of several images.

    Args:
        original: Pixels (H, W, 3) uint8.
        panels: Images of the same size by caption, drawn in this order.
        crop: Left, top, width and height of the detail in pixels.

    Returns:
        The matplotlib figure.

    Raises:
        ValueError: If the crop is not inside the image.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    check_crop(crop, original.shape[:2])
    left, top, width, height = crop
    rows = 2 if len(panels) > 3 else 1
    columns = -(-len(panels) // rows)
    side = 2.6
    across = rows * side * original.shape[1] / original.shape[0]
    detail = side * width / height
    figure = Figure(
        figsize=(across + columns * detail, rows * (side + 0.45)), dpi=120, layout='constrained'
    )
    grid = figure.add_gridspec(rows, columns + 1, width_ratios=[across, *[detail] * columns])
    whole = figure.add_subplot(grid[:, 0])
    whole.imshow(original)
    whole.add_patch(
        Rectangle(
            (left - 0.5, top - 0.5), width, height, fill=False, edgecolor='red', linewidth=1.5
        )
    )
    whole.set_axis_off()
    for place, (caption, image) in enumerate(panels.items()):
        axes = figure.add_subplot(grid[place // columns, 1 + place % columns])
        axes.imshow(image[top : top + height, left : left + width], interpolation='nearest')
        axes.set_title(caption, fontsize=9)
        axes.set_axis_off()
    fit_titles(figure)
    return figure
