"""No figure of the package cuts a text off: measured against the canvas, with titles far too
long.
"""

import numpy as np
import pytest
import torch

pytest.importorskip('mmengine')
pytest.importorskip('matplotlib')
from matplotlib.figure import Figure

from mmwcc.diagnostics import fit_titles, plot_errors
from mmwcc.diagnostics.compression_error import QUANTIZED, WAVELET, CompressionErrors, Setting
from mmwcc.diagnostics.feature_maps import MapError
from mmwcc.engine.figures import FeatureMap, draw_feature_maps
from mmwcc.post_training import Candidate, Choice, allocate
from mmwcc.reports import TradeoffPoint, plot_allocation, plot_enlarged_crops, plot_tradeoff

LONG = 'deeplabv3plus_mobilenetv2-0.5x_wcc-w8a8-k12_5-steps_120i_street-192x128 at $5 or $6, ' * 2


@pytest.fixture
def saved(monkeypatch):
    """Collect the figures that are written."""
    figures, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure,
        'savefig',
        lambda figure, *args, **kwargs: figures.append(figure) or save(figure, *args, **kwargs),
    )
    return figures


def cut_off(figure):
    """Return what reaches beyond the canvas, and titles that lie on each other."""
    figure.draw_without_rendering()
    renderer, canvas = figure.canvas.get_renderer(), figure.bbox
    boxes = {'suptitle': figure._suptitle.get_window_extent()} if figure._suptitle else {}
    titles = {}
    for place, axes in enumerate(figure.axes):
        if axes.get_title():
            titles[place] = axes.title.get_window_extent()
        legend = axes.get_legend()
        texts = [*axes.texts, *(legend.get_texts() if legend else [])]
        boxes |= {text: text.get_window_extent() for text in texts if text.get_text()}
        if axes.axison:  # with its label and those of its ticks
            boxes |= {axis: axis.get_tightbbox(renderer) for axis in (axes.xaxis, axes.yaxis)}
    outside = [
        str(what)
        for what, box in (boxes | titles).items()
        if box is not None and (min(box.x0, box.y0) < 0 or box.x1 > canvas.x1 or box.y1 > canvas.y1)
    ]
    places = list(titles)
    crossing = [(i, j) for i in places for j in places if i < j and titles[i].overlaps(titles[j])]
    return outside + crossing


def draw_error_curves(path):
    settings = [Setting(QUANTIZED, 2), Setting(WAVELET, 8, 0.25)]
    layers = {f'layer{i}': dict.fromkeys(settings, MapError(1, 9 + i, 4)) for i in range(5)}
    sizes = {name: (512 // 2**i, 1024 // 2**i) for i, name in enumerate(layers)}
    plot_errors(CompressionErrors(layers, sizes, images=2), path, LONG)


def draw_allocation(path):
    candidates = {f'backbone.{LONG[:60]}.{i}': [Candidate(Choice(8, 8), 1e6, 0.1)] for i in 'ab'}
    plot_allocation(allocate(candidates, 1e9), path, LONG)


def draw_tradeoff(path):
    points = [
        TradeoffPoint(name, name, 'mostly 12.5 %', bops, 0, (50.0,), (name,), (8, 16), True)
        for name, bops in (('WCC 8/8', 1e9), ('quantized', 3e9))
    ]
    plot_tradeoff(points, 'a metric of its own/mIoU', path, LONG)


def draw_crops(path):
    image = np.zeros((40, 120, 3), np.uint8)
    panels = {f'{i}: {LONG}\n31.22 dB': image for i in range(5)}
    plot_enlarged_crops(image, panels, (0, 0, 12, 12)).savefig(path)


def draw_maps(path):
    maps = [FeatureMap(LONG.replace(', ', '.'), 1e6 * torch.rand(2, 16, 16), 0.123456)]
    draw_feature_maps(torch.zeros(3, 120, 200), [*maps, *maps]).savefig(path)


@pytest.mark.parametrize(
    'draw', [draw_error_curves, draw_allocation, draw_tradeoff, draw_crops, draw_maps]
)
def test_no_text_is_cut_off(draw, saved, tmp_path):
    draw(tmp_path / 'figure.png')
    assert cut_off(saved[-1]) == []


def test_lines_end_between_the_parts_of_a_name():
    figure = Figure(figsize=(3, 2), layout='constrained')
    figure.subplots().set_title('one_two-three/four ' * 3)
    figure.suptitle('short, for $5 and $6')
    fit_titles(figure)
    lines = figure.axes[0].get_title().split('\n')
    assert len(lines) > 1 and all(line[-1] in '_-/r' for line in lines)
    assert ''.join(lines).replace(' ', '') == 'one_two-three/four' * 3
    assert figure.get_suptitle() == 'short, for $5 and $6'


def test_a_word_without_end_and_a_text_without_end():
    figure = Figure(figsize=(4, 4), layout='constrained')
    figure.subplots().set_title('m' * 60)
    figure.suptitle('much ' * 200)
    fit_titles(figure)
    assert figure.axes[0].get_title().replace('\n', '') == 'm' * 60
    assert len(figure.get_suptitle().split('\n')) == 4 and figure.get_suptitle().endswith('…')
    assert cut_off(figure) == []
