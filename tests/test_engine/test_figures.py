"""What the figures show, read from matplotlib's objects."""

import numpy as np
import pytest
import torch

from mmwcc.diagnostics.feature_maps import compress_map, quantize_map
from mmwcc.engine.figures import FeatureMap, draw_feature_maps, to_pixels
from mmwcc.quantizers import EnergyActQuantizer


def panels(figure):
    """Return what imshow was given, and the title, of every panel with an image."""
    return [
        (np.asarray(axes.images[0].get_array()), axes.get_title())
        for axes in figure.axes
        if axes.images
    ]


@pytest.fixture
def values():
    x = torch.rand(3, 16, 24)
    x[1] *= 10  # the channel that varies most
    return x


def test_what_the_panels_show(values):
    image = torch.full((3, 30, 40), 300.0)
    settings = dict(keep_ratio=0.25, bits=8, levels=2, selection='coarse')
    figure = draw_feature_maps(image, [FeatureMap('some.layer', values, **settings)])
    (pixels, _), (dense, title), (quantized, _), (compressed, _), (kept, kept_title) = panels(
        figure
    )
    assert pixels.shape == (30, 40, 3) and (pixels == 255).all()
    np.testing.assert_array_equal(dense, values[1])
    np.testing.assert_array_equal(quantized, quantize_map(values, 2)[1])
    expected = compress_map(values[None], 0.25, levels=2, selection='coarse')
    np.testing.assert_array_equal(compressed, expected.values[0, 1])
    np.testing.assert_array_equal(~kept.astype(bool), expected.kept[0])
    assert title == 'dense, channel 1 of 3\n24 x 16' and kept_title.startswith(
        '96 of 384 positions kept'
    )


def test_bits_by_energy_have_colours_and_a_histogram(values):
    quantizer = EnergyActQuantizer(bits=2, widths=(0, 3, 8))
    quantizer.expect_coefficients('test')
    quantizer(values.flatten(1).t().unsqueeze(0))
    feature_map = FeatureMap('a', values, 1.0, levels=2, quantizer=quantizer.eval())
    figure = draw_feature_maps(torch.zeros(3, 8, 8), [feature_map])
    drawn, title = next(panel for panel in panels(figure) if 'positions kept' in panel[1])
    widths = feature_map.compressed().widths[0].numpy()
    np.testing.assert_array_equal(drawn, widths)
    narrow, wide = (round(100 * (widths == width).mean()) for width in (3, 8))
    assert narrow and title.endswith(f'\nbits 3: {narrow} %, 8: {wide} %')


def test_titles_name_bits_and_errors(values):
    maps = [
        FeatureMap('a', values, 0.125),
        FeatureMap('b', values, 0.5, 32),
        FeatureMap('c', values, 1.0, 32),
    ]
    titles = [title for _, title in panels(draw_feature_maps(torch.zeros(3, 8, 8), maps))]
    error = (quantize_map(values, 1) - values).square().mean().item()
    assert titles[2].startswith(f'quantized, 1 bit\nMSE {error:.3g} (')
    assert titles[3].startswith('12.5 % of haar, 8 bits = 1 effective\nMSE ')
    assert titles[6].startswith('quantized, 16 bits') and titles[7].startswith(
        '50 % of haar, full precision = 16 eff'
    )
    assert titles[10] == 'quantized, full precision\nMSE 0 (0 %)'


def test_gray_images_long_names_and_dead_maps():
    name = 'decode_head.sep_bottleneck.1.pointwise_conv.conv'
    figure = draw_feature_maps(torch.zeros(1, 8, 8), [FeatureMap(name, torch.zeros(2, 8, 8), 0.5)])
    assert panels(figure)[0][0].shape == (8, 8)
    assert figure.axes[2].get_ylabel().replace('\n', '') == name
    pixels = to_pixels(figure)
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    assert pixels.min() == 0 and (pixels[0, 0] == 255).all()
