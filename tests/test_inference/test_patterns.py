"""Each pattern of recordings: found where it stands, left where it is only similar."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmwcc import kernels
from mmwcc.inference import record

GRID = (0.1, 128, 0, 255)


class Network(nn.Module):
    """A function as a network."""

    def __init__(self, run):
        super().__init__()
        self.run = run

    def forward(self, x):
        return self.run(x)


def recorded(run, x):
    """Return the operators of the recording of a function, whose result must not change."""
    recording = record(Network(run).eval(), x)
    for got, expected in zip(recording(x), run(x), strict=True):
        assert got.stride() == expected.stride()
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    targets = [node.target for node in recording._operators.graph.nodes]
    return [target.overloadpacket.__name__ for target in targets if not isinstance(target, str)]


def rounded(x):
    return kernels.round_map(x, *GRID)


def joined(*maps):
    return kernels.cat_maps(
        [(levels, 0.2 if i else 0.1, 128) for i, levels in enumerate(maps)], *GRID
    )


def test_resized_maps_are_written_into_their_concatenation():
    def run(x):
        small = rounded(x)
        large = kernels.resize_map(small, 8, 6)
        again = kernels.resize_map(small[:, :1, :1, :1], 8, 6)
        return [joined(rounded(torch.tanh(large.float())), large, again)]

    names = recorded(run, torch.randn(1, 3, 4, 3))
    assert names.count('resize_map') == 1 and names[-1] == 'cat_maps'  # tanh reads the first too


@pytest.mark.parametrize(
    'run',
    [
        lambda y: [joined(kernels.resize_map(y, 8, 6)), kernels.resize_map(y, 8, 6)],
        lambda y: [joined(kernels.resize_map(y, 8, 6), kernels.resize_map(y, 8, 6, True))],
        lambda y: [joined(kernels.resize_map(y, 8, 6, True), kernels.resize_map(y, 8, 6, True))],
    ],
    ids=['one that is returned', 'two kinds of corners', 'aligned corners'],
)
def test_concatenations_of_resized_maps(run):
    names = recorded(lambda x: run(rounded(x)), torch.randn(1, 3, 4, 3))
    assert names.count('resize_map') <= 1 and names.count('cat_maps') == 1


def test_logits_are_resized_without_a_copy():
    def run(x):
        return [F.interpolate(x.contiguous(), (9, 32), mode='bilinear')]

    x = torch.randn(1, 3, 4, 3).contiguous(memory_format=torch.channels_last)
    assert recorded(run, x) == ['resize_planes']


@pytest.mark.parametrize(
    'run',
    [
        lambda x: [F.interpolate(x.contiguous(), scale_factor=1.7, mode='bilinear')],
        lambda x: [F.interpolate(x, (9, 32), mode='bilinear')],
    ],
    ids=['by a factor', 'channels_last'],
)
def test_other_resizing_stays(run):
    x = torch.randn(1, 3, 4, 3).contiguous(memory_format=torch.channels_last)
    assert 'resize_planes' not in recorded(run, x)
