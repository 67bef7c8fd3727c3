"""The figure of feature maps in a runner: when it is drawn, of what, and what is refused."""

import cv2
import pytest
import torch
from mmengine.registry import MODELS
from torch import nn
from toy_training import toy_runner

from mmwcc.compression import allow_dense
from mmwcc.engine.hooks import FeatureCompressionVisHook, feature_compression_vis_hook
from mmwcc.layers import WaveletCompressedLinear, fitting_levels

HOOK = dict(type='mmwcc.FeatureCompressionVisHook')


@pytest.fixture
def drawn(monkeypatch):
    """Collect what is drawn, and draw it."""
    calls, draw = [], feature_compression_vis_hook.draw_feature_maps

    def record(image, maps):
        calls.append((image, maps))
        return draw(image, maps)

    monkeypatch.setattr(feature_compression_vis_hook, 'draw_feature_maps', record)
    return calls


def runner(work_dir, hook=HOOK, **overrides):
    return toy_runner(work_dir, hooks=dict(feature_compression=hook), **overrides)


def test_figures_of_validations_and_tests(tmp_path, drawn):
    made = runner(tmp_path, dict(HOOK, interval=2, layers=['point']), length=6, val_interval=2)
    made.train()
    # The first and the third of three validations; each is of the first of two batches.
    files = sorted(tmp_path.rglob('vis_image/*.png'))
    assert [file.name for file in files] == [
        'feature_compression_2.png',
        'feature_compression_6.png',
    ]
    assert cv2.imread(str(files[0])).shape[2] == 3
    assert len(drawn) == 2
    made.test()
    assert len(drawn) == 3


def test_compressed_layers_are_drawn_as_they_stand(tmp_path, drawn):
    """The schedule has keep_ratio 1 until iteration 4, and 8 bits from iteration 3 on."""
    made = runner(tmp_path, dict(HOOK, layers=['point']), length=6, val_interval=3)
    made.train()
    found = [(maps[0].keep_ratio, maps[0].bits, maps[0].levels) for _, maps in drawn]
    assert found == [(1.0, 32, 2), (0.5, 8, 2)]
    image, (first,) = drawn[-1]
    with torch.no_grad():
        # The figure is RGB; the images count as loaded by mmcv, in BGR.
        expected = torch.relu(made.model.stem(image.flip(0)[None]))[0]
    torch.testing.assert_close(first.values, expected)


def test_dense_layers_and_a_fixed_keep_ratio(tmp_path, drawn):
    runner(tmp_path / 'dense', dict(HOOK, layers=['.*']), compression=None).test()
    assert [(item.name, item.keep_ratio, item.bits, item.levels) for item in drawn[0][1]] == [
        ('point', 0.25, 8, 3),
        ('classify', 0.25, 8, 3),
    ]
    made = runner(tmp_path / 'fixed', dict(HOOK, layers=['point'], keep_ratio=0.1))
    allow_dense(made.model)
    made.test()
    assert drawn[1][1][0].keep_ratio == 0.1 and drawn[1][1][0].levels == 2


def test_default_layers_are_spread_without_auxiliary_heads(tmp_path, drawn):
    runner(tmp_path, compression=None, model=dict(type='DeepToy')).test()
    assert [item.name for item in drawn[0][1]] == ['layers.0', 'layers.3', 'layers.6', 'layers.9']


def test_a_pattern_without_match_stops_before_training(tmp_path):
    made = runner(tmp_path, dict(HOOK, layers=['pointt']))
    message = (
        "entry of layers .1x1 only. 'pointt' matches no.*Did you mean 'point'.*: point, classify.$"
    )
    with pytest.raises(ValueError, match=message):
        made.train()
    assert made.iter == 0


def test_a_model_without_point_wise_layers_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match='the model must have a 1x1 convolution with one group, got none'
    ):
        runner(tmp_path, compression=None, model=dict(type='NoPointToy')).test()


def test_maps_that_are_too_small_are_said_and_not_drawn(tmp_path, drawn):
    # Images are 8x10: three levels divide the map, four do not.
    model = dict(
        type='mmwcc.CompressedModel',
        task_type='ToySegmentor',
        compression=dict(
            pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5, levels=4)
        ),
    )
    made = runner(tmp_path, dict(HOOK, layers=['point']), model=model)
    warnings = []
    made.logger.warning = warnings.append
    made.test()
    assert not drawn and len(warnings) == 1
    assert warnings[0].startswith(
        'FeatureCompressionVisHook drew nothing: none of point was given a map'
    )


@pytest.mark.parametrize(
    ('arguments', 'error', 'message'),
    [
        (dict(interval=0), ValueError, 'interval must be at least 1, got 0'),
        (
            dict(layers='point'),
            TypeError,
            r"layers must be a list of regular expressions, got 'point'. Did you mean",
        ),
        (
            dict(keep_ratio=0),
            ValueError,
            r'FeatureCompressionVisHook: keep_ratio must be in \(0, 1\], got 0',
        ),
        (
            dict(keep_ratio='half'),
            TypeError,
            'FeatureCompressionVisHook: keep_ratio must be a number',
        ),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        FeatureCompressionVisHook(**arguments)


ToySegmentor = MODELS.get('ToySegmentor')


@MODELS.register_module(force=True)
class DeepToy(ToySegmentor):
    """Ten layers, and heads that do not run."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        del self.point, self.classify
        self.layers = nn.Sequential(*[nn.Conv2d(3, 3, 1) for _ in range(10)])
        self.auxiliary_head = nn.Sequential(*[nn.Conv2d(3, 3, 1) for _ in range(5)])

    def forward(self, inputs, labels, mode='tensor'):
        return list(self.layers(torch.stack(list(inputs))).argmax(1))


@MODELS.register_module(force=True)
class NoPointToy(ToySegmentor):
    """Larger kernels only."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        del self.point, self.classify


class Tokens(nn.Module):
    """A map, seen as tokens by a linear layer."""

    def __init__(self):
        super().__init__()
        self.linear = WaveletCompressedLinear(8, 8, keep_ratio=0.5)

    def forward(self, x):
        return self.linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def test_linear_layers_are_drawn_with_the_levels_that_fit(tmp_path, drawn):
    made = runner(tmp_path, dict(HOOK, layers=['point.linear']))
    made.model.point = Tokens()
    allow_dense(made.model)
    made.test()
    ((_, (drawn_map,)),) = drawn
    size = drawn_map.values.shape[1:]
    assert drawn_map.name == 'point.linear' and drawn_map.keep_ratio == 0.5
    assert drawn_map.levels == fitting_levels(tuple(size), 3)
