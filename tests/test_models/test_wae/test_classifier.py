"""Classification on the two parts, its stages and its cost."""

import copy
from collections import Counter

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement
from torch import nn

from mmwcc.models import WAEClassifier

pytest.importorskip('mmcv')
VGG = dict(type='mmwcc.VGG', depth=11, base_channels=8, num_stages=3)
HEAD = dict(type='mmwcc.LinearClsHead', num_classes=4, in_channels=32)
FUSED = dict(type='mmwcc.LinearClsHead', num_classes=4, in_channels=40)


def classifier(decomposition=dict(type='mmwcc.WAE'), **kwargs):  # noqa: B006
    return MODELS.build(
        {
            **dict(
                type='mmwcc.WAEClassifier',
                decomposition=decomposition,
                backbone=VGG,
                neck=dict(type='mmwcc.GlobalAveragePooling'),
                head=HEAD,
                fused_head=FUSED,
            ),
            **kwargs,
        }
    )


def samples(*labels):
    return [BaseDataElement(gt_label=torch.tensor([label])) for label in labels]


def losses(model, x):
    return model(x, samples(*range(len(x))), mode='loss')


def trained(model, x) -> set[str]:
    """Return the parts of the model that get a gradient, and check that no part gets a half of
    one.
    """
    parsed, _ = model.parse_losses(losses(model, x))
    model.zero_grad()
    parsed.backward()
    parts = {}
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        parts.setdefault(
            '.'.join(name.split('.')[: 2 if name.startswith('decomposition') else 1]), set()
        ).add(parameter.grad is not None)
    assert all(len(values) == 1 for values in parts.values())
    return {part for part, values in parts.items() if values == {True}}


NETWORKS = {'backbone', 'high_backbone', 'head', 'fused_head'}
WHOLE_WAE = {'decomposition.encoder', 'decomposition.decoder_low', 'decomposition.decoder_high'}


@pytest.mark.parametrize(
    ('kwargs', 'parts'),
    [
        (dict(stage=2), NETWORKS),
        (dict(stage=3), NETWORKS | WHOLE_WAE),
        (dict(stage=3, gamma=0), NETWORKS | {'decomposition.encoder'}),
        (
            dict(stage=3, gamma=0, decomposition=dict(type='mmwcc.WAEEncoder')),
            NETWORKS | {'decomposition.body', 'decomposition.split'},
        ),
        (
            dict(stage=2, decomposition=dict(type='mmwcc.WaveletDecomposition', wavelet='haar')),
            NETWORKS,
        ),
        (dict(stage=2, fused_head=None), {'backbone', 'head'}),
    ],
    ids=[
        'stage 2',
        'stage 3',
        'without transform loss',
        'Decomposition+CNN',
        'Wavelet+CNN',
        'low part alone',
    ],
)
def test_what_is_trained(kwargs, parts):
    assert trained(classifier(**kwargs).train(), torch.rand(2, 3, 16, 18)) == parts


def test_losses_and_scores_follow_the_paper():
    model, x = classifier(gamma=0.5).eval(), torch.rand(2, 3, 16, 16)
    low, high = model.decomposition(x)
    pool = nn.AdaptiveAvgPool2d(1)
    low_feature = pool(model.backbone(model.norm_low(low))[0]).flatten(1)
    high_feature = pool(model.high_backbone(model.norm_high(high))[0]).flatten(1)
    low_score = model.head.fc(low_feature)
    fused = model.fused_head.fc(torch.cat([low_feature, high_feature], 1))
    torch.testing.assert_close(model(x), (low_score + fused) / 2)

    found, labels = losses(model, x), torch.tensor([0, 1])
    transform = model.decomposition(x, mode='loss')
    expected = {
        'low.loss': nn.functional.cross_entropy(low_score, labels),
        'fused.loss': nn.functional.cross_entropy(fused, labels),
        'transform.loss_reconstruction': 0.5 * transform['loss_reconstruction'],
        'transform.loss_high': 0.5 * transform['loss_high'],
    }
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(model.parse_losses(found)[0], sum(expected.values()))

    sample = model(x, samples(0, 1), mode='predict')[0]
    torch.testing.assert_close(sample.pred_score, ((low_score + fused) / 2).softmax(1)[0])
    torch.testing.assert_close(sample.pred_score_low, low_score.softmax(1)[0])


def test_parts_are_normalized_without_affine():
    model = classifier(stage=2).train()
    model(torch.rand(8, 3, 16, 16))
    assert not list(model.norm_low.parameters()) and not list(model.norm_high.parameters())
    assert model.norm_low.num_batches_tracked == 1
    assert not model.decomposition.training and model.backbone.training


def test_wavelet_parts_feed_nine_channels():
    model = classifier(dict(type='mmwcc.WaveletDecomposition'), stage=2)
    assert model.high_backbone.stages[0][0].conv.in_channels == 9
    assert model.high_backbone.stages[0][0].conv.out_channels == 2
    assert model(torch.rand(2, 3, 16, 16)).shape == (2, 4)


def test_stage_three_continues_stage_two():
    """One class and one set of keys through the stages, so that load_from is enough."""
    second, third = classifier(stage=2), classifier(stage=3)
    assert third.load_state_dict(second.state_dict()).missing_keys == []
    copy.deepcopy(third)


def test_bad_arguments_are_refused():
    with pytest.raises(
        ValueError, match='stage must be 2 .* or 3 .*, got 1. Stage 1 trains mmwcc.WAE alone'
    ):
        classifier(stage=1)
    with pytest.raises(ValueError, match='gamma must not be negative, got -1'):
        classifier(gamma=-1)
    with pytest.raises(
        ValueError,
        match='gamma must be 0 for a decomposition without a transform loss, got 0.001 for '
        'WAEEncoder',
    ):
        classifier(dict(type='mmwcc.WAEEncoder'))
    with pytest.raises(ValueError, match='fused_head must be given with high_backbone, got None'):
        classifier(fused_head=None, high_backbone=VGG)


def test_multiply_accumulates_of_wae_vgg16():
    """The parts of WAE + VGG16 at 224x224 in GMAC, as the published network definition gives
    them.
    """
    with torch.device('meta'):
        model = WAEClassifier(
            dict(type='mmwcc.WAE'),
            dict(type='mmwcc.VGG', depth=16, ceil_mode=True),
            dict(HEAD, num_classes=1000, in_channels=8192, hidden_channels=(1024, 1024)),
            dict(FUSED, num_classes=1000, in_channels=10240, hidden_channels=(2048, 2048)),
        ).eval()
    count = Counter()
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            part = name.split('.')[0].replace('fused_', '')

            def add(layer, _, output, part=part):
                count[part] += layer.weight[0].numel() * output[0].numel()

            layer.register_forward_hook(add)
    with torch.no_grad():
        model(torch.zeros(1, 3, 224, 224, device='meta'))
    assert {part: round(macs / 1e9, 4) for part, macs in count.items()} == dict(
        decomposition=0.2637, backbone=3.8367, high_backbone=0.2439, head=0.0377
    )
    assert round(count.total() / 1e9, 4) == 4.3819


def test_speed_up_is_bounded_by_the_networks():
    """1 / (1/4 + 1/64) = 3.76 for networks alone; each convolution of the high branch costs a 16th
    but the first.
    """
    with torch.device('meta'):
        wide, slim = (
            MODELS.build(dict(type='mmwcc.VGG', depth=16, base_channels=width))
            for width in (64, 16)
        )
    sizes = [
        sum(layer.weight.numel() for layer in network.modules() if isinstance(layer, nn.Conv2d))
        for network in (wide, slim)
    ]
    assert round(1 / (1 / 4 + 1 / 64), 2) == 3.76
    assert 16 * (sizes[1] - 16 * 27) == sizes[0] - 64 * 27
