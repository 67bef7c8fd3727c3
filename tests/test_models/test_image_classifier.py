"""Classifier, head, pooling and preprocessor, alone and in mmpretrain's place."""

from importlib.util import find_spec

import pytest
import torch
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import Registry, init_default_scope
from mmengine.structures import BaseDataElement
from torch import nn

from mmwcc.models import (
    ClsDataPreprocessor,
    CrossEntropyLoss,
    GlobalAveragePooling,
    ImageClassifier,
    LinearClsHead,
)
from mmwcc.models.classifiers.heads import write_predictions

pytest.importorskip('mmcv')
BACKBONE = dict(type='mmwcc.VGG', depth=11, base_channels=4)
HEAD = dict(type='mmwcc.LinearClsHead', num_classes=3, in_channels=32)


def samples(*labels):
    return [BaseDataElement(gt_label=torch.tensor([label])) for label in labels]


def classifier(**kwargs):
    return ROOT_MODELS.build(
        {
            **dict(
                type='mmwcc.ImageClassifier',
                backbone=BACKBONE,
                head=HEAD,
                neck=dict(type='mmwcc.GlobalAveragePooling'),
            ),
            **kwargs,
        }
    )


def test_the_three_modes_agree():
    model, x = classifier().eval(), torch.rand(2, 3, 32, 32)
    scores = model(x)
    losses = model(x, samples(0, 2), mode='loss')
    expected = -scores.log_softmax(1)[[0, 1], [0, 2]].mean()
    torch.testing.assert_close(losses['loss'], expected)
    predicted = model(x, samples(0, 2), mode='predict')
    torch.testing.assert_close(
        torch.stack([sample.pred_score for sample in predicted]), scores.softmax(1)
    )
    assert [int(sample.pred_label) for sample in predicted] == scores.argmax(1).tolist()
    assert [int(sample.gt_label) for sample in predicted] == [0, 2]


def test_samples_are_made_where_there_are_none():
    assert [
        set(sample.keys()) for sample in classifier()(torch.rand(1, 3, 32, 32), mode='predict')
    ] == [{'pred_score', 'pred_label'}]


def test_train_step_trains_everything():
    from mmengine.optim import OptimWrapper

    model = classifier(
        data_preprocessor=dict(type='mmwcc.ClsDataPreprocessor', mean=[9.0, 8, 7], std=[2.0, 2, 2])
    )
    before = {key: value.clone() for key, value in model.named_parameters()}
    data = dict(
        inputs=[torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8) for _ in range(2)],
        data_samples=samples(0, 1),
    )
    model.train_step(data, OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1)))
    assert all(not torch.equal(before[key], value) for key, value in model.named_parameters())


def test_a_backbone_may_return_a_tensor():
    class Single(nn.Conv2d):
        def __init__(self):
            super().__init__(3, 32, 3)

    ROOT_MODELS.register_module(name='SingleTensorBackbone', module=Single, force=True)
    assert classifier(backbone=dict(type='SingleTensorBackbone'))(torch.rand(1, 3, 8, 8)).shape == (
        1,
        3,
    )


def test_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="mode must be 'tensor', 'loss' or 'predict', got 'train'"):
        classifier()(torch.rand(1, 3, 32, 32), mode='train')


def test_without_neck_the_head_flattens():
    model = classifier(
        neck=None, head=dict(HEAD, in_channels=32 * 4, hidden_channels=(5, 6), dropout=0.5)
    )
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 3)
    assert [layer.out_features for layer in model.head.fc if isinstance(layer, nn.Linear)] == [
        5,
        6,
        3,
    ]
    assert [layer.p for layer in model.head.fc if isinstance(layer, nn.Dropout)] == [0.5, 0.5]


def test_head_refuses_other_features():
    with pytest.raises(
        ValueError, match='got in_channels=32 and a feature of 128. Set in_channels=128'
    ):
        classifier(neck=None)(torch.rand(1, 3, 64, 64))


def test_head_refuses_labels_and_classes_that_do_not_exist():
    with pytest.raises(
        ValueError, match=r'labels must be in \[0, 2\] for num_classes=3, got 0 to 3'
    ):
        classifier()(torch.rand(2, 3, 32, 32), samples(0, 3), mode='loss')
    with pytest.raises(ValueError, match='num_classes must be at least 1, got 0'):
        LinearClsHead(0, 4)


def test_cross_entropy():
    scores, labels = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0])
    log = scores.log_softmax(1)[0]
    torch.testing.assert_close(
        CrossEntropyLoss(label_smoothing=0.3, loss_weight=2.0)(scores, labels),
        -2 * (0.7 * log[0] + 0.3 * log.mean()),
    )
    with pytest.raises(ValueError, match=r'label_smoothing must be in \[0, 1\), got 1'):
        CrossEntropyLoss(1.0)


def test_pooling_averages():
    (pooled,) = GlobalAveragePooling()((torch.arange(4.0).reshape(1, 1, 2, 2),))
    assert pooled.tolist() == [[1.5]]


def test_predictions_can_have_a_suffix():
    (sample,) = write_predictions(torch.tensor([[0.0, 1.0]]), samples(0), suffix='_low')
    assert int(sample.pred_label_low) == 1 and 'pred_label' not in sample


def test_preprocessor_orders_channels_and_normalizes():
    preprocess = ClsDataPreprocessor(mean=[1.0, 2.0, 3.0], std=[1.0, 2.0, 4.0], to_rgb=True)
    image = torch.tensor([3, 4, 5], dtype=torch.uint8).reshape(3, 1, 1)  # blue, green, red
    assert preprocess(dict(inputs=[image]))['inputs'].flatten().tolist() == [4.0, 1.0, 0.0]


def test_preprocessor_refuses_mixed_sizes_and_half_a_normalization():
    with pytest.raises(ValueError, match=r'must have one size, got \[\(2, 2\), \(2, 3\)\]'):
        ClsDataPreprocessor()(dict(inputs=[torch.zeros(3, 2, 2), torch.zeros(3, 2, 3)]))
    with pytest.raises(
        ValueError, match=r'mean and std must be given together, got mean=\[1\] and std=None'
    ):
        ClsDataPreprocessor(mean=[1])


def test_preprocessor_refuses_to_mix_images():
    """The classifier of mmpretrain always hands batch_augments over, mostly None."""
    ClsDataPreprocessor(batch_augments=None)
    with pytest.raises(ValueError, match=r'batch_augments must be None, got .*mmpretrain.ClsData'):
        ClsDataPreprocessor(batch_augments=dict(augments=dict(type='Mixup', alpha=0.2)))


class StandInClassifier(nn.Module):
    """Does with its parts what mmpretrain's ImageClassifier does: tuples all the way, the head
    takes the last.
    """

    def __init__(self, backbone, neck, head):
        super().__init__()
        self.backbone, self.neck, self.head = (
            ROOT_MODELS.build(part) for part in (backbone, neck, head)
        )

    def forward(self, x):
        features = self.neck(self.backbone(x))
        assert isinstance(features, tuple)
        return self.head(features)


@pytest.mark.skipif(
    find_spec('mmpretrain') is not None, reason='test_mmpretrain.py has the real one here'
)
def test_backbones_serve_in_mmpretrain():
    """Its registry, like this stand-in, is a child of mmengine's; a scope in the type leads to
    mmwcc's from there.
    """
    registry = Registry('model', parent=ROOT_MODELS, scope='mmpretrain')
    registry.register_module(name='ImageClassifier', module=StandInClassifier)
    registry.register_module(name='GlobalAveragePooling', module=GlobalAveragePooling)
    init_default_scope('mmpretrain')
    try:
        model = registry.build(
            dict(
                type='ImageClassifier',
                backbone=BACKBONE,
                head=HEAD,
                neck=dict(type='GlobalAveragePooling'),
            )
        )
        assert type(model) is StandInClassifier
        assert type(classifier()) is ImageClassifier
    finally:
        ROOT_MODELS._children.pop('mmpretrain')
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 3)
