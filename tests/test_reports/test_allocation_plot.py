"""The image of an allocation."""

import pytest

pytest.importorskip('matplotlib')
from mmwcc.post_training import Candidate, Choice, allocate
from mmwcc.reports import plot_allocation


@pytest.mark.parametrize('layers', [1, 60])
def test_one_column_a_layer(layers, tmp_path):
    import matplotlib.image

    candidates = {
        f'layer{i}': [Candidate(Choice(8, 8, None if i % 2 else 0.25), 1e6, 0.1)]
        for i in range(layers)
    }
    plot_allocation(allocate(candidates, 1e9), tmp_path / 'allocation.png', 'title')
    height, width, _ = matplotlib.image.imread(tmp_path / 'allocation.png').shape
    assert (height, width) == (800, 600 if layers == 1 else 1020)
