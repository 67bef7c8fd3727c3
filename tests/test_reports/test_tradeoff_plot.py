"""The plot of accuracy against cost: what is drawn where."""

from dataclasses import replace

import pytest

pytest.importorskip('mmengine')
from mmwcc.reports.tradeoff import TradeoffPoint
from mmwcc.reports.tradeoff_plot import plot_tradeoff


@pytest.fixture
def points():
    return [
        TradeoffPoint(
            'k25', 'WCC 8/8', '25 %', 2.5e9, 5e8, (50.0, 52.0), ('a', 'b'), (8, 16), True
        ),
        TradeoffPoint('k50', 'WCC 8/8', '50 %', 5e9, 5e8, (53.0,), ('c',), (8, 16), True),
        TradeoffPoint('q', 'quantized', '8/4', 5e9, 0, (20.0,), ('d',), (8, 16)),
        TradeoffPoint('d', 'dense', '', 2e11, 0, (60.0,), ('e',), (8, 16), True),
    ]


@pytest.fixture
def axes_of(tmp_path, monkeypatch):
    """Draw points, and return the axes that were written."""
    from matplotlib.figure import Figure

    figures, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure,
        'savefig',
        lambda figure, *args, **kwargs: figures.append(figure) or save(figure, *args, **kwargs),
    )

    def draw(points):
        plot_tradeoff(points, 'mIoU', tmp_path / 't.png', 'streets')
        assert (tmp_path / 't.png').read_bytes().startswith(b'\x89PNG')
        return figures[-1].axes[0]

    return draw


def test_image(points, axes_of):
    points[-1] = replace(points[-1], bops=1e10)
    axes = axes_of(points)
    front = axes.lines[0]
    assert (list(front.get_xdata()), list(front.get_ydata())) == ([2.5, 5, 10], [51, 53, 60])
    assert axes.get_legend_handles_labels()[1] == ['Pareto front', 'dense', 'quantized', 'WCC 8/8']
    assert {text.get_text() for text in axes.texts} == {'25 %', '50 %', '8/4', ''}
    assert axes.get_ylabel() == 'mIoU, mean and standard error' and axes.get_title() == 'streets'


def test_image_of_a_dense_network_far_away(points, axes_of):
    """More than twice as far as the others: a line, and the axis ends with the others."""
    axes = axes_of(points)
    line, front = axes.lines[:2]
    assert list(line.get_ydata()) == [60, 60]
    assert list(front.get_xdata()) == [2.5, 5]
    assert axes.get_legend_handles_labels()[1] == [
        'dense, 200 G BOPs',
        'Pareto front',
        'quantized',
        'WCC 8/8',
    ]
    assert axes.get_xlim()[1] < 10


def test_image_of_a_dense_network_alone(points, axes_of):
    assert list(axes_of(points[-1:]).lines[0].get_xdata()) == [200]
