"""EfficientDet: its sizes, training and predictions, its compressed twin, and what the paper says
it costs.
"""

import copy
import functools
import math
import pickle
import re

import pytest
import torch
from torch import nn

pytest.importorskip('mmdet', exc_type=ImportError)

from mmdet.models import EfficientNet  # noqa: E402
from mmengine.optim import OptimWrapper  # noqa: E402
from mmengine.registry import MODELS  # noqa: E402
from toy_efficientdet import BASE, batch, build, config, head  # noqa: E402

from mmwcc.cost import count_cost
from mmwcc.cost.formulas import conv_macs  # noqa: E402
from mmwcc.layers import QuantConv2d, WaveletCompressedConv2d  # noqa: E402
from mmwcc.model_tree.compressed import compressed_layers
from mmwcc.models.detection import SCALING, BiFPN, compound_scaling  # noqa: E402
from mmwcc.presets import compress  # noqa: E402

STEM = 'backbone.layers.0.conv'


def compressed(preset, *args, **kwargs) -> nn.Module:
    return MODELS.build(compress(config(*args, **kwargs), preset, **BASE.scope.to_dict()))


# Sizes.


@pytest.fixture
def on_meta(monkeypatch):
    """Build without memory and time; mmdetection reads the rates of stochastic depth from a
    tensor.
    """
    monkeypatch.setattr(torch, 'linspace', functools.partial(torch.linspace, device='cpu'))
    with torch.device('meta'):
        yield


@pytest.mark.parametrize(
    ('size', 'millions'),
    [
        ('d0', 3.9),
        ('d1', 6.6),
        ('d2', 8.1),
        ('d3', 12),
        ('d4', 21),
        ('d5', 34),
        ('d6', 52),
        ('d7', 52),
    ],
)
def test_published_number_of_parameters(size, millions, on_meta):
    """Table 2 of the paper, in as many digits."""
    parameters = (
        sum(parameter.numel() for parameter in build(size, num_classes=90).parameters()) / 1e6
    )
    assert round(parameters, 1 if millions < 10 else 0) == millions


@pytest.mark.parametrize('size', SCALING)
def test_scaling_follows_the_backbone(size, on_meta):
    scale = SCALING[size]
    features = EfficientNet(scale.arch, out_indices=(3, 4, 5), conv_cfg=None)(
        torch.empty(1, 3, 64, 64)
    )
    assert tuple(x.shape[1] for x in features) == scale.features


def test_scaling_by_the_rules_of_the_paper():
    """Equations 1 to 3, as far as its Table 1 keeps to them."""
    for number, name in enumerate(('d0', 'd1', 'd2', 'd3', 'd4', 'd5')):
        assert SCALING[name].resolution == (1280 if number == 5 else 512 + 128 * number)
        assert SCALING[name].cells == min(3 + number, 7)
        assert SCALING[name].convs == 3 + number // 3
        assert SCALING[name].channels == pytest.approx(64 * 1.35**number, rel=0.06)


def test_unknown_size():
    with pytest.raises(
        ValueError, match="compound_scaling: name must be one of d0, d1, .*, got 'd8'"
    ):
        compound_scaling('d8')


# The detector.


@pytest.mark.parametrize('preset', [None, 'wcc_w4a8_k50'])
def test_one_training_step_trains_everything(preset):
    model = build() if preset is None else compressed(preset)
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    # Maps of 2 x 2 pixels and more, for batch normalization.
    losses = model.train_step(
        batch(size=(128, 128)), OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-2))
    )
    assert math.isfinite(losses['loss'].item())
    # Levels without an object learn nothing of boxes.
    assert not {
        key
        for key, value in model.named_parameters()
        if torch.equal(before[key], value)
        and not re.match(r'bbox_head\.reg_norms\.\d\.[1-4]\.', key)
    }


def test_training_lowers_the_loss():
    neck, model = (
        BiFPN([4, 6], 8, num_cells=1, num_outs=3),
        head(num_ins=3, stacked_convs=1, anchor_generator=dict(octave_base_scale=2)),
    )
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
    dense = {name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)} - set(
        layers
    )
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
    model.train_step(
        batch(size=(128, 128)), OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-3))
    )
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
