"""EfficientDet: scaling, BiFPN, head, losses, its compressed twin, what the paper says it costs, published weights."""
import copy
import functools
import math
import pickle
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

pytest.importorskip('mmdet', exc_type=ImportError)

from mmdet.models import EfficientNet  # noqa: E402
from mmdet.structures import DetDataSample  # noqa: E402
from mmdet.structures.bbox import bbox_overlaps  # noqa: E402
from mmengine.config import Config, ConfigDict  # noqa: E402
from mmengine.optim import OptimWrapper  # noqa: E402
from mmengine.registry import MODELS, init_default_scope  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402

from mmwcc.compression import compressed_layers, count_cost  # noqa: E402
from mmwcc.compression.operations import conv_macs  # noqa: E402
from mmwcc.layers import QuantConv2d, WaveletCompressedConv2d  # noqa: E402
from mmwcc.models.detection import SCALING, BiFPN, compound_scaling, from_effdet  # noqa: E402
from mmwcc.models.detection.bifpn import fuse, pyramid_nodes  # noqa: E402
from mmwcc.models.detection.effdet_weights import COCO_ROWS  # noqa: E402
from mmwcc.models.detection.efficientdet_head import EfficientDetHead  # noqa: E402
from mmwcc.presets import compress  # noqa: E402

BASE = Config.fromfile(Path(__file__).parents[2] / 'configs' / 'efficientdet' / '_base_' / 'efficientdet.py')
STEM = 'backbone.layers.0.conv'


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmdet')
    torch.manual_seed(0)


def config(size='d0', num_classes=3) -> ConfigDict:
    cfg = copy.deepcopy(BASE)
    cfg.merge_from_dict(dict(model=compound_scaling(size)))
    cfg.model.bbox_head.num_classes = num_classes
    return cfg.model


def build(*args, **kwargs) -> nn.Module:
    return MODELS.build(config(*args, **kwargs))


def compressed(preset, *args, **kwargs) -> nn.Module:
    return MODELS.build(compress(config(*args, **kwargs), preset, **BASE.scope.to_dict()))


def batch(count=2, size=(64, 64)) -> dict:
    samples = []
    for _ in range(count):
        sample = DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0)))
        sample.gt_instances = InstanceData(bboxes=torch.tensor([[4.0, 6.0, 40.0, 50.0], [30.0, 8.0, 60.0, 30.0]]),
                                           labels=torch.tensor([0, 2]))
        samples.append(sample)
    return dict(inputs=[torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in samples], data_samples=samples)


def head(**changes) -> EfficientDetHead:
    return EfficientDetHead(**{**dict(num_classes=3, in_channels=8, stacked_convs=2, train_cfg=BASE.model.train_cfg,
                                      test_cfg=BASE.model.test_cfg), **changes})


def pyramid(channels=8, size=64, levels=5) -> list[torch.Tensor]:
    return [torch.rand(2, channels, -(-size // 2**level), -(-size // 2**level)) for level in range(3, 3 + levels)]


# Sizes.


@pytest.fixture
def on_meta(monkeypatch):
    """Build without memory and time; mmdetection reads the rates of stochastic depth from a tensor."""
    monkeypatch.setattr(torch, 'linspace', functools.partial(torch.linspace, device='cpu'))
    with torch.device('meta'):
        yield


@pytest.mark.parametrize(('size', 'millions'), [('d0', 3.9), ('d1', 6.6), ('d2', 8.1), ('d3', 12), ('d4', 21),
                                                ('d5', 34), ('d6', 52), ('d7', 52)])
def test_published_number_of_parameters(size, millions, on_meta):
    """Table 2 of the paper, in as many digits."""
    parameters = sum(parameter.numel() for parameter in build(size, num_classes=90).parameters()) / 1e6
    assert round(parameters, 1 if millions < 10 else 0) == millions


@pytest.mark.parametrize('size', SCALING)
def test_scaling_follows_the_backbone(size, on_meta):
    scale = SCALING[size]
    features = EfficientNet(scale.arch, out_indices=(3, 4, 5), conv_cfg=None)(torch.empty(1, 3, 64, 64))
    assert tuple(x.shape[1] for x in features) == scale.features


def test_scaling_by_the_rules_of_the_paper():
    """Equations 1 to 3, as far as its Table 1 keeps to them."""
    for number, name in enumerate(('d0', 'd1', 'd2', 'd3', 'd4', 'd5')):
        assert SCALING[name].resolution == (1280 if number == 5 else 512 + 128 * number)
        assert SCALING[name].cells == min(3 + number, 7)
        assert SCALING[name].convs == 3 + number // 3
        assert SCALING[name].channels == pytest.approx(64 * 1.35**number, rel=0.06)


def test_unknown_size():
    with pytest.raises(ValueError, match="compound_scaling: name must be one of d0, d1, .*, got 'd8'"):
        compound_scaling('d8')


# BiFPN.


def test_fusion_by_hand():
    maps = [torch.tensor([2.0]), torch.tensor([-4.0]), torch.tensor([7.0])]
    torch.testing.assert_close(fuse(maps, torch.tensor([1.0, 3.0, -5.0])), torch.tensor([-10 / 4.0001]))
    assert fuse(maps) == 5.0


def test_nodes_of_five_levels():
    """Inputs are 0 (P3) to 4 (P7); down to P6, P5, P4, P3 (5 to 8), up to P4, P5, P6, P7 (9 to 12)."""
    assert pyramid_nodes(5) == [(3, 4), (2, 5), (1, 6), (0, 7), (1, 7, 8), (2, 6, 9), (3, 5, 10), (4, 11)]


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
    p3, p4 = torch.randn(1, 3, 8, 6, dtype=torch.float64), torch.randn(1, 5, 4, 3, dtype=torch.float64)

    def norm(layer, x):
        return (x / math.sqrt(1 + 1e-3)) * layer.weight.view(-1, 1, 1) + layer.bias.view(-1, 1, 1)

    def lateral(layer, x):
        return norm(layer.bn, torch.einsum('oc,bchw->bohw', layer.conv.weight[..., 0, 0], x))

    def node(number, *maps):
        layer = neck.cells[0].nodes[number]
        joined = sum(w * x for w, x in zip(layer.weights, maps, strict=True)) / (layer.weights.sum() + 1e-4)
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


@pytest.mark.parametrize(('changes', 'message'), [
    (dict(num_cells=0), 'BiFPN: num_cells must be at least 1, got 0'),
    (dict(num_outs=2), 'BiFPN: num_outs must be at least 2 and the number of maps, 3, got 2'),
    (dict(fusion='softmax'), "BiFPN: fusion must be one of fast, sum, got 'softmax'")])
def test_bifpn_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        BiFPN([4, 5, 6], 8, **changes)


def test_bifpn_needs_as_many_maps():
    with pytest.raises(ValueError, match='BiFPN: there must be 3 maps, one for each of in_channels, got 2'):
        BiFPN([4, 5, 6], 8)(pyramid()[:2])


# Head.


def test_head_shares_convolutions_and_separates_norms():
    model = head()
    scores, boxes = model(pyramid())
    assert [tuple(x.shape[1:]) for x in scores] == [(27, side, side) for side in (8, 4, 2, 1, 1)]
    assert [tuple(x.shape[1:]) for x in boxes] == [(36, side, side) for side in (8, 4, 2, 1, 1)]
    calls = []
    handle = model.cls_convs[0].register_forward_hook(lambda *args: calls.append(args))
    model(pyramid())
    handle.remove()
    assert len(calls) == 5
    statistics = torch.stack([norm.running_mean for norm in model.cls_norms[0]])
    assert len(statistics.unique(dim=0)) == 5


def test_first_scores_are_one_in_a_hundred():
    model = head()
    model.init_weights()
    scores, boxes = model.eval()([torch.zeros(1, 8, 2, 2)] * 5)
    torch.testing.assert_close(scores[0].sigmoid(), torch.full((1, 27, 2, 2), 0.01))
    assert boxes[0].abs().max() == 0
    large = head(in_channels=256)
    large.init_weights()
    weight = large.reg_convs[1].pointwise_conv.weight
    assert weight.std().item() == pytest.approx(256**-0.5, rel=0.02)


def test_anchors_are_those_of_the_reference():
    """Side 4 strides times 2^(0, 1/3, 2/3), as wide as high, twice as wide, twice as high, in the middle of a pixel."""
    anchors = head().prior_generator.grid_priors([(3, 2)] + [(1, 1)] * 4, device='cpu')
    expected = []
    for row in range(3):
        for column in range(2):
            for octave in range(3):
                for width, height in ((1, 1), (2**0.5, 0.5**0.5), (0.5**0.5, 2**0.5)):
                    side = 4 * 8 * 2**(octave / 3)
                    x, y = 8 * (column + 0.5), 8 * (row + 0.5)
                    expected.append([x - side * width / 2, y - side * height / 2, x + side * width / 2,
                                     y + side * height / 2])
    torch.testing.assert_close(anchors[0], torch.tensor(expected))
    largest = anchors[4][0]
    assert (largest[2] - largest[0]).item() == 4 * 128


def test_losses_by_hand():
    """Focal loss and Huber's loss of the reference, for anchors that an object overlaps by half, or overlaps best."""
    model, samples = head(), batch(count=1)['data_samples']
    truth, labels = samples[0].gt_instances.bboxes, samples[0].gt_instances.labels
    outputs = [[torch.randn(1, 9 * n, side, side) for side in (8, 4, 2, 1, 1)] for n in (3, 4)]
    losses = model.loss_by_feat(*outputs, [samples[0].gt_instances], [dict(img_shape=(64, 64), pad_shape=(64, 64))])

    scores, boxes = (torch.cat([x.permute(0, 2, 3, 1).reshape(-1, n) for x in maps])
                     for maps, n in zip(outputs, (3, 4), strict=True))
    anchors = torch.cat(model.prior_generator.grid_priors([(s, s) for s in (8, 4, 2, 1, 1)], device='cpu'))
    overlaps = bbox_overlaps(anchors, truth)
    best, owner = overlaps.max(1)
    positive = best >= 0.5
    for number in range(len(truth)):
        anchor = overlaps[:, number].argmax()
        positive[anchor], owner[anchor] = True, number
    target = torch.zeros_like(scores)
    target[positive, labels[owner[positive]]] = 1
    p = torch.where(target == 1, scores.sigmoid(), 1 - scores.sigmoid())
    focal = -torch.where(target == 1, 0.25, 0.75) * (1 - p)**1.5 * p.log()
    count = positive.sum()
    torch.testing.assert_close(sum(losses['loss_cls']), focal.sum() / count)

    size, centre = anchors[:, 2:] - anchors[:, :2], (anchors[:, 2:] + anchors[:, :2]) / 2
    goal = truth[owner]
    encoded = torch.cat([((goal[:, 2:] + goal[:, :2]) / 2 - centre) / size, ((goal[:, 2:] - goal[:, :2]) / size).log()],
                        dim=1)
    error = (boxes - encoded)[positive].abs()
    huber = torch.where(error < 0.1, error**2 / 2, 0.1 * (error - 0.05))
    torch.testing.assert_close(sum(losses['loss_bbox']), 50 * huber.sum() / (4 * count))
    assert 2 <= count < len(anchors)


def test_head_refuses():
    with pytest.raises(ValueError, match='EfficientDetHead: anchor_generator must have 5 strides, .* got 2'):
        head(anchor_generator=dict(strides=[8, 16]))
    with pytest.raises(ValueError, match='EfficientDetHead: there must be 5 maps, got 4'):
        head()(pyramid(levels=4))


# The detector.


@pytest.mark.parametrize('preset', [None, 'wcc_w4a8_k50'])
def test_one_training_step_trains_everything(preset):
    model = build() if preset is None else compressed(preset)
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    # Maps of 2 x 2 pixels and more, for batch normalization.
    losses = model.train_step(batch(size=(128, 128)), OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-2)))
    assert math.isfinite(losses['loss'].item())
    # Levels without an object learn nothing of boxes.
    assert not {key for key, value in model.named_parameters()
                if torch.equal(before[key], value) and not re.match(r'bbox_head\.reg_norms\.\d\.[1-4]\.', key)}


def test_training_lowers_the_loss():
    neck, model = BiFPN([4, 6], 8, num_cells=1, num_outs=3), head(
        num_ins=3, stacked_convs=1, anchor_generator=dict(octave_base_scale=2))
    model.init_weights()
    maps, sample = [torch.rand(1, 4, 8, 8), torch.rand(1, 6, 4, 4)], batch(count=1)['data_samples']
    sample[0].set_metainfo(dict(pad_shape=(64, 64)))
    optimizer = torch.optim.Adam([*neck.parameters(), *model.parameters()], lr=1e-2)
    history = []
    for _ in range(30):
        total = sum(sum(values) for values in model.loss(neck(maps), sample).values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append(total.item())
    assert history[-1] < 0.5 * history[0]


def test_predictions():
    model = build().eval()
    with torch.no_grad():
        found = model.test_step(batch(size=(64, 96)))
    assert len(found) == 2
    instances = found[0].pred_instances
    assert instances.bboxes.shape[1] == 4 and 0 < len(instances) <= 100
    assert instances.bboxes[:, 0::2].max() <= 96 and instances.bboxes[:, 1::2].max() <= 64


# The compressed twin.


def test_everything_but_the_stem_is_compressed():
    model = compressed('wcc_w4a8_k25')
    layers = compressed_layers(model)
    dense = {name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)} - set(layers)
    assert dense == {STEM}
    assert isinstance(layers['bbox_head.cls_predictor.pointwise_conv'], WaveletCompressedConv2d)
    assert isinstance(layers['bbox_head.cls_predictor.depthwise_conv'], QuantConv2d)
    assert isinstance(layers['neck.extra.conv'], WaveletCompressedConv2d)
    assert {type(layer) for name, layer in layers.items() if '.se.' in name} == {QuantConv2d}


def test_predictors_can_stay_dense():
    model = MODELS.build(compress(config(), 'wcc_w4a8_k25'))
    layers = compressed_layers(model)
    assert not [name for name in layers if 'predictor' in name]
    assert [name for name in layers if name.startswith('bbox_head.')]


def test_all_coefficients_without_quantizers_are_the_dense_network():
    dense, twin = build().double().eval(), compressed('wcc_fp_k50').double().eval()
    for layer in compressed_layers(twin).values():
        layer.keep_ratio = 1.0
    twin.load_state_dict(dense.state_dict())
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        for ours, expected in zip(twin(x)[0] + twin(x)[1], dense(x)[0] + dense(x)[1], strict=True):
            torch.testing.assert_close(ours, expected)


def test_checkpoint_round_trip(tmp_path):
    model = compressed('wcc_w4a8_k50')
    model.train_step(batch(size=(128, 128)), OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-3)))
    torch.save(model.state_dict(), tmp_path / 'model.pth')
    again = compressed('wcc_w4a8_k50')
    again.load_state_dict(torch.load(tmp_path / 'model.pth'))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model.eval()(x)[0][0]
        for twin in (again, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(twin.eval()(x)[0][0], expected)
    missing = compressed('wcc_w4a8_k50').load_state_dict(build().state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert all('_quant.' in key for key in missing.missing_keys)


def test_published_cost():
    """Table 1: EfficientDet-D1 with 4/8 bits and 90 classes at 640x640."""
    model = compressed('quant_w4a8', 'd1', num_classes=90)
    # A 25th of the pixels; all levels divide by 5, so that counts are proportional.
    layers = {layer.name: layer for layer in count_cost(model, (128, 128)).layers}
    stem = layers.pop(STEM)
    assert (stem.weight_bits, stem.act_bits, stem.macs) == (32, 32, conv_macs(3, 32, 3, (64, 64)))
    excitation = [layers.pop(name) for name in list(layers) if '.se.' in name]
    assert all((layer.weight_bits, layer.act_bits) == (4, 8) for layer in layers.values())
    # The paper counts the stem on its padded input, and not what works on single pixels.
    padded = 32 * 32 * conv_macs(3, 32, 3, (642, 642), stride=2, convention='paper')
    total = padded + 25 * sum(layer.total_bops for layer in layers.values())
    assert total / 1e9 == pytest.approx(280.406795776, rel=1e-12)
    assert sum(layer.total_bops for layer in excitation) < 2e-4 * total


# Published weights.


def effdet_names(rows=270, channels=64, cells=3) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the weights of efficientdet_d0, with rows outputs for classes."""
    shapes = {}

    def conv(name, *shape, bias=False):
        shapes[f'{name}.weight'] = shape
        if bias:
            shapes[f'{name}.bias'] = shape[:1]

    def norm(name, width):
        shapes.update({f'{name}.{key}': (width, ) for key in ('weight', 'bias', 'running_mean', 'running_var')})
        shapes[f'{name}.num_batches_tracked'] = ()

    def separable(name, out, bias=False):
        conv(f'{name}.conv_dw', channels, 1, 3, 3)
        conv(f'{name}.conv_pw', out, channels, 1, 1, bias=bias)

    conv('backbone.conv_stem', 32, 3, 3, 3)
    norm('backbone.bn1', 32)
    width = 32
    for stage, (out, blocks, kernel, grow) in enumerate([(16, 1, 3, 1), (24, 2, 3, 6), (40, 2, 5, 6), (80, 3, 3, 6),
                                                         (112, 3, 5, 6), (192, 4, 5, 6), (320, 1, 3, 6)]):
        for block in range(blocks):
            name, inner = f'backbone.blocks.{stage}.{block}', width * grow
            steps = ['conv_dw', 'conv_pw'] if grow == 1 else ['conv_pw', 'conv_dw', 'conv_pwl']
            for number, step in enumerate(steps, 1):
                last = number == len(steps)
                shape = {'conv_dw': (inner, 1, kernel, kernel)}.get(
                    step, (out, inner, 1, 1) if last else (inner, width, 1, 1))
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
            shapes[f'{name}.combine.edge_weights'] = (len(sources), )
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
    weights = {name: torch.full(shape, float(number)) for number, (name, shape) in enumerate(shapes.items())}
    ours = from_effdet(weights)
    build(num_classes=30).load_state_dict(ours)
    number = {name: float(place) for place, name in enumerate(shapes)}
    for name, original in {
            'backbone.layers.0.conv.weight': 'backbone.conv_stem.weight',
            'backbone.layers.1.0.linear_conv.bn.bias': 'backbone.blocks.0.0.bn2.bias',
            'backbone.layers.4.4.depthwise_conv.conv.weight': 'backbone.blocks.4.1.conv_dw.weight',
            'backbone.layers.5.4.se.conv2.conv.bias': 'backbone.blocks.6.0.se.conv_expand.bias',
            'neck.extra.bn.running_var': 'fpn.resample.3.conv.bn.running_var',
            'neck.cells.0.nodes.5.laterals.0.conv.weight': 'fpn.cell.0.fnode.5.combine.resample.2.conv.conv.weight',
            'neck.cells.2.nodes.4.weights': 'fpn.cell.2.fnode.4.combine.edge_weights',
            'bbox_head.cls_norms.2.4.weight': 'class_net.bn_rep.2.4.bn.weight',
            'bbox_head.reg_convs.1.pointwise_conv.weight': 'box_net.conv_rep.1.conv_pw.weight',
            'bbox_head.reg_predictor.depthwise_conv.weight': 'box_net.predict.conv_dw.weight'}.items():
        assert (ours[name] == number[original]).all(), name


def test_published_boxes_are_ours():
    """The same outputs in front of the predictor give the same boxes, from anchors that differ by a hundredth."""
    names = effdet_names()
    weights = {name: torch.randn(shape, dtype=torch.float64) * 0.1 for name, shape in names.items()}
    ours, x = from_effdet(weights), torch.randn(64, dtype=torch.float64)
    theirs, mine = (w @ x + b for w, b in (
        (weights['box_net.predict.conv_pw.weight'][..., 0, 0], weights['box_net.predict.conv_pw.bias']),
        (ours['bbox_head.reg_predictor.pointwise_conv.weight'][..., 0, 0],
         ours['bbox_head.reg_predictor.pointwise_conv.bias'])))
    for anchor in range(9):
        width, height = ((1, 1), (1.4, 0.7), (0.7, 1.4))[anchor % 3]
        y, x, h, w = theirs[4 * anchor:4 * anchor + 4]
        expected = torch.stack([x * width, y * height, w.exp() * width, h.exp() * height])
        width, height = ((1, 1), (2**0.5, 2**-0.5), (2**-0.5, 2**0.5))[anchor % 3]
        x, y, w, h = mine[4 * anchor:4 * anchor + 4]
        torch.testing.assert_close(torch.stack([x * width, y * height, w.exp() * width, h.exp() * height]), expected)


def test_classes_are_chosen():
    assert len(COCO_ROWS) == 80 and COCO_ROWS[:2] == (0, 1) and COCO_ROWS[11] == 12 and COCO_ROWS[-1] == 89
    weights = {name: torch.zeros(shape) for name, shape in effdet_names(rows=810).items()}
    weights['class_net.predict.conv_pw.bias'] = torch.arange(810.0)
    chosen = from_effdet(weights, COCO_ROWS)['bbox_head.cls_predictor.pointwise_conv.bias']
    assert chosen.tolist() == [90.0 * anchor + row for anchor in range(9) for row in COCO_ROWS]


@pytest.mark.parametrize(('change', 'message'), [
    (lambda weights: weights.update(wrong=torch.zeros(1)), "from_effdet: 'wrong' must be the name of a weight"),
    (lambda weights: weights.update({'class_net.predict.conv_pw.bias': torch.zeros(80)}),
     r'from_effdet: the cls predictor must have outputs for 9 anchors, got a bias of shape \(80,\)'),
    (lambda weights: weights.pop('box_net.predict.conv_pw.weight'),
     'from_effdet: the reg predictor must have outputs for 9 anchors, got a weight of shape none')])
def test_other_weights_are_refused(change, message):
    weights = {name: torch.zeros(shape) for name, shape in effdet_names().items()}
    change(weights)
    with pytest.raises(ValueError, match=message):
        from_effdet(weights)


def test_classes_must_be_there():
    weights = {name: torch.zeros(shape) for name, shape in effdet_names().items()}
    with pytest.raises(ValueError, match='from_effdet: classes must be among the 30 outputs, got'):
        from_effdet(weights, COCO_ROWS)
