"""The figure of details: what is drawn where."""

import numpy as np
import pytest

from mmwcc.reports.enlarged_crops import plot_enlarged_crops

pytest.importorskip('matplotlib')


def test_every_panel_shows_the_crop_of_its_image():
    images = {
        name: np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        for seed, name in enumerate('abcd')
    }
    figure = plot_enlarged_crops(images['a'], images, (5, 7, 8, 4))
    whole, *details = figure.axes
    assert np.array_equal(whole.images[0].get_array(), images['a'])
    (frame,) = whole.patches
    assert (frame.get_xy(), frame.get_width(), frame.get_height()) == ((4.5, 6.5), 8, 4)
    assert [axes.get_title() for axes in details] == list('abcd')
    for axes, image in zip(details, images.values(), strict=True):
        assert np.array_equal(axes.images[0].get_array(), image[7:11, 5:13])


@pytest.mark.parametrize('crop', [(-1, 0, 4, 4), (0, 0, 41, 4), (0, 28, 4, 4), (0, 0, 0, 4)])
def test_crops_outside_are_refused(crop):
    with pytest.raises(
        ValueError,
        match='crop must be left, top, width and height inside an image of 40 x 30 pixels',
    ):
        plot_enlarged_crops(np.zeros((30, 40, 3), np.uint8), {}, crop)
