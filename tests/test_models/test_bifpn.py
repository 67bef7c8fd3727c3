"""mmwcc/models/detection/bifpn.py."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

pytest.importorskip('mmdet', exc_type=ImportError)

from toy_efficientdet import pyramid  # noqa: E402

from mmwcc.models.detection import BiFPN  # noqa: E402
from mmwcc.models.detection.bifpn import fuse, pyramid_nodes  # noqa: E402


def test_fusion_by_hand():
    maps = [torch.tensor([2.0]), torch.tensor([-4.0]), torch.tensor([7.0])]
    torch.testing.assert_close(
        fuse(maps, torch.tensor([1.0, 3.0, -5.0])), torch.tensor([-10 / 4.0001])
    )
    assert fuse(maps) == 5.0


def test_nodes_of_five_levels():
    """Inputs are 0 (P3) to 4 (P7); down to P6, P5, P4, P3 (5 to 8), up to P4, P5, P6, P7 (9 to
    12).
    """
    assert pyramid_nodes(5) == [
        (3, 4),
        (2, 5),
        (1, 6),
        (0, 7),
        (1, 7, 8),
        (2, 6, 9),
        (3, 5, 10),
        (4, 11),
    ]


@pytest.mark.parametrize('fusion', ['fast', 'sum'])
@pytest.mark.parametrize('size', [(64, 64), (37, 50)])
def test_shapes(size, fusion):
    sizes = [tuple(-(-side // 2**level) for side in size) for level in range(3, 8)]
    maps = [torch.rand(2, 4 + level, *sizes[level]) for level in range(3)]
    outputs = BiFPN([4, 5, 6], 8, fusion=fusion)(maps)
    assert [tuple(x.shape) for x in outputs] == [(2, 8, *size) for size in sizes]


def test_the_cell_written_out():
    neck = BiFPN([3, 5], 4, num_cells=1, num_outs=3).double().eval()
    for parameter in neck.parameters():
        nn.init.uniform_(parameter, 0.1, 1.0)
    p3, p4 = (
        torch.randn(1, 3, 8, 6, dtype=torch.float64),
        torch.randn(1, 5, 4, 3, dtype=torch.float64),
    )

    def norm(layer, x):
        return (x / math.sqrt(1 + 1e-3)) * layer.weight.view(-1, 1, 1) + layer.bias.view(-1, 1, 1)

    def lateral(layer, x):
        return norm(layer.bn, torch.einsum('oc,bchw->bohw', layer.conv.weight[..., 0, 0], x))

    def node(number, *maps):
        layer = neck.cells[0].nodes[number]
        joined = sum(w * x for w, x in zip(layer.weights, maps, strict=True)) / (
            layer.weights.sum() + 1e-4
        )
        joined = joined * joined.sigmoid()
        depthwise, pointwise = layer.conv.conv
        x = F.conv2d(joined, depthwise.weight, padding=1, groups=4)
        return norm(layer.conv.bn, F.conv2d(x, pointwise.weight))

    def up(x, height, width):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)[..., :height, :width]

    def down(x):
        return F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=-math.inf), 3, 2)

    p5 = down(lateral(neck.extra, p4))
    nodes = neck.cells[0].nodes
    p4_down = node(0, lateral(nodes[0].laterals[0], p4), up(p5, 4, 3))
    out3 = node(1, lateral(nodes[1].laterals[0], p3), up(p4_down, 8, 6))
    out4 = node(2, lateral(nodes[2].laterals[0], p4), p4_down, down(out3))
    out5 = node(3, p5, down(out4))
    for ours, expected in zip(neck([p3, p4]), (out3, out4, out5), strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(num_cells=0), 'BiFPN: num_cells must be at least 1, got 0'),
        (dict(num_outs=2), 'BiFPN: num_outs must be at least 2 and the number of maps, 3, got 2'),
        (dict(fusion='softmax'), "BiFPN: fusion must be one of fast, sum, got 'softmax'"),
    ],
)
def test_bifpn_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        BiFPN([4, 5, 6], 8, **changes)


def test_bifpn_needs_as_many_maps():
    with pytest.raises(
        ValueError, match='BiFPN: there must be 3 maps, one for each of in_channels, got 2'
    ):
        BiFPN([4, 5, 6], 8)(pyramid()[:2])
