"""mmwcc/models/detection/effdet_weights.py: published weights of EfficientDet under our names."""

import pytest
import torch

pytest.importorskip('mmdet', exc_type=ImportError)

from toy_efficientdet import build  # noqa: E402

from mmwcc.models.detection import from_effdet  # noqa: E402
from mmwcc.models.detection.effdet_weights import COCO_ROWS  # noqa: E402


def effdet_names(rows=270, channels=64, cells=3) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the weights of efficientdet_d0, with rows outputs for classes."""
    shapes = {}

    def conv(name, *shape, bias=False):
        shapes[f'{name}.weight'] = shape
        if bias:
            shapes[f'{name}.bias'] = shape[:1]

    def norm(name, width):
        shapes.update(
            {f'{name}.{key}': (width,) for key in ('weight', 'bias', 'running_mean', 'running_var')}
        )
        shapes[f'{name}.num_batches_tracked'] = ()

    def separable(name, out, bias=False):
        conv(f'{name}.conv_dw', channels, 1, 3, 3)
        conv(f'{name}.conv_pw', out, channels, 1, 1, bias=bias)

    conv('backbone.conv_stem', 32, 3, 3, 3)
    norm('backbone.bn1', 32)
    width = 32
    for stage, (out, blocks, kernel, grow) in enumerate(
        [
            (16, 1, 3, 1),
            (24, 2, 3, 6),
            (40, 2, 5, 6),
            (80, 3, 3, 6),
            (112, 3, 5, 6),
            (192, 4, 5, 6),
            (320, 1, 3, 6),
        ]
    ):
        for block in range(blocks):
            name, inner = f'backbone.blocks.{stage}.{block}', width * grow
            steps = ['conv_dw', 'conv_pw'] if grow == 1 else ['conv_pw', 'conv_dw', 'conv_pwl']
            for number, step in enumerate(steps, 1):
                last = number == len(steps)
                shape = {'conv_dw': (inner, 1, kernel, kernel)}.get(
                    step, (out, inner, 1, 1) if last else (inner, width, 1, 1)
                )
                conv(f'{name}.{step}', *shape)
                norm(f'{name}.bn{number}', out if last else inner)
            conv(f'{name}.se.conv_reduce', width // 4, inner, 1, 1, bias=True)
            conv(f'{name}.se.conv_expand', inner, width // 4, 1, 1, bias=True)
            width = out

    def lateral(name, width):
        conv(f'{name}.conv.conv', channels, width, 1, 1)
        norm(f'{name}.conv.bn', channels)

    lateral('fpn.resample.3', 320)
    nodes = [[3, 4], [2, 5], [1, 6], [0, 7], [1, 7, 8], [2, 6, 9], [3, 5, 10], [4, 11]]
    for cell in range(cells):
        for number, sources in enumerate(nodes):
            name = f'fpn.cell.{cell}.fnode.{number}'
            shapes[f'{name}.combine.edge_weights'] = (len(sources),)
            for source, width in enumerate([40, 112, 320]) if cell == 0 else []:
                if source in sources:
                    lateral(f'{name}.combine.resample.{source}', width)
            separable(f'{name}.after_combine.conv', channels)
            norm(f'{name}.after_combine.conv.bn', channels)
    for net, out in (('class_net', rows), ('box_net', 36)):
        for number in range(3):
            separable(f'{net}.conv_rep.{number}', channels)
            for level in range(5):
                norm(f'{net}.bn_rep.{number}.{level}.bn', channels)
        separable(f'{net}.predict', out, bias=True)
    return shapes


def test_published_names_are_ours():
    shapes = effdet_names()
    weights = {
        name: torch.full(shape, float(number))
        for number, (name, shape) in enumerate(shapes.items())
    }
    ours = from_effdet(weights)
    build(num_classes=30).load_state_dict(ours)
    number = {name: float(place) for place, name in enumerate(shapes)}
    for name, original in {
        'backbone.layers.0.conv.weight': 'backbone.conv_stem.weight',
        'backbone.layers.1.0.linear_conv.bn.bias': 'backbone.blocks.0.0.bn2.bias',
        'backbone.layers.4.4.depthwise_conv.conv.weight': 'backbone.blocks.4.1.conv_dw.weight',
        'backbone.layers.5.4.se.conv2.conv.bias': 'backbone.blocks.6.0.se.conv_expand.bias',
        'neck.extra.bn.running_var': 'fpn.resample.3.conv.bn.running_var',
        'neck.cells.0.nodes.5.laterals.0.conv.weight': 'fpn.cell.0.fnode.5.combine.resample.2'
        '.conv.conv.weight',
        'neck.cells.2.nodes.4.weights': 'fpn.cell.2.fnode.4.combine.edge_weights',
        'bbox_head.cls_norms.2.4.weight': 'class_net.bn_rep.2.4.bn.weight',
        'bbox_head.reg_convs.1.pointwise_conv.weight': 'box_net.conv_rep.1.conv_pw.weight',
        'bbox_head.reg_predictor.depthwise_conv.weight': 'box_net.predict.conv_dw.weight',
    }.items():
        assert (ours[name] == number[original]).all(), name


def test_published_boxes_are_ours():
    """The same outputs in front of the predictor give the same boxes, from anchors that differ by a
    hundredth.
    """
    names = effdet_names()
    weights = {name: torch.randn(shape, dtype=torch.float64) * 0.1 for name, shape in names.items()}
    ours, x = from_effdet(weights), torch.randn(64, dtype=torch.float64)
    theirs, mine = (
        w @ x + b
        for w, b in (
            (
                weights['box_net.predict.conv_pw.weight'][..., 0, 0],
                weights['box_net.predict.conv_pw.bias'],
            ),
            (
                ours['bbox_head.reg_predictor.pointwise_conv.weight'][..., 0, 0],
                ours['bbox_head.reg_predictor.pointwise_conv.bias'],
            ),
        )
    )
    for anchor in range(9):
        width, height = ((1, 1), (1.4, 0.7), (0.7, 1.4))[anchor % 3]
        y, x, h, w = theirs[4 * anchor : 4 * anchor + 4]
        expected = torch.stack([x * width, y * height, w.exp() * width, h.exp() * height])
        width, height = ((1, 1), (2**0.5, 2**-0.5), (2**-0.5, 2**0.5))[anchor % 3]
        x, y, w, h = mine[4 * anchor : 4 * anchor + 4]
        torch.testing.assert_close(
            torch.stack([x * width, y * height, w.exp() * width, h.exp() * height]), expected
        )


def test_classes_are_chosen():
    assert (
        len(COCO_ROWS) == 80
        and COCO_ROWS[:2] == (0, 1)
        and COCO_ROWS[11] == 12
        and COCO_ROWS[-1] == 89
    )
    weights = {name: torch.zeros(shape) for name, shape in effdet_names(rows=810).items()}
    weights['class_net.predict.conv_pw.bias'] = torch.arange(810.0)
    chosen = from_effdet(weights, COCO_ROWS)['bbox_head.cls_predictor.pointwise_conv.bias']
    assert chosen.tolist() == [90.0 * anchor + row for anchor in range(9) for row in COCO_ROWS]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            lambda weights: weights.update(wrong=torch.zeros(1)),
            "from_effdet: 'wrong' must be the name of a weight",
        ),
        (
            lambda weights: weights.update({'class_net.predict.conv_pw.bias': torch.zeros(80)}),
            r'from_effdet: the cls predictor must have outputs for 9 anchors, got a bias of shape '
            r'\(80,\)',
        ),
        (
            lambda weights: weights.pop('box_net.predict.conv_pw.weight'),
            'from_effdet: the reg predictor must have outputs for 9 anchors, got a weight of shape '
            'none',
        ),
    ],
)
def test_other_weights_are_refused(change, message):
    weights = {name: torch.zeros(shape) for name, shape in effdet_names().items()}
    change(weights)
    with pytest.raises(ValueError, match=message):
        from_effdet(weights)


def test_classes_must_be_there():
    weights = {name: torch.zeros(shape) for name, shape in effdet_names().items()}
    with pytest.raises(ValueError, match='from_effdet: classes must be among the 30 outputs, got'):
        from_effdet(weights, COCO_ROWS)
