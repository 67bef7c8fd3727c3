"""mmwcc/models/detection/efficientdet_head.py: its layers, anchors and losses."""

import pytest
import torch

pytest.importorskip('mmdet', exc_type=ImportError)

from mmdet.structures.bbox import bbox_overlaps  # noqa: E402
from toy_efficientdet import batch, head, pyramid  # noqa: E402


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
    """Side 4 strides times 2^(0, 1/3, 2/3), as wide as high, twice as wide, twice as high, in the
    middle of a pixel.
    """
    anchors = head().prior_generator.grid_priors([(3, 2)] + [(1, 1)] * 4, device='cpu')
    expected = []
    for row in range(3):
        for column in range(2):
            for octave in range(3):
                for width, height in ((1, 1), (2**0.5, 0.5**0.5), (0.5**0.5, 2**0.5)):
                    side = 4 * 8 * 2 ** (octave / 3)
                    x, y = 8 * (column + 0.5), 8 * (row + 0.5)
                    expected.append(
                        [
                            x - side * width / 2,
                            y - side * height / 2,
                            x + side * width / 2,
                            y + side * height / 2,
                        ]
                    )
    torch.testing.assert_close(anchors[0], torch.tensor(expected))
    largest = anchors[4][0]
    assert (largest[2] - largest[0]).item() == 4 * 128


def test_losses_by_hand():
    """Focal loss and Huber's loss of the reference, for anchors that an object overlaps by half, or
    overlaps best.
    """
    model, samples = head(), batch(count=1)['data_samples']
    truth, labels = samples[0].gt_instances.bboxes, samples[0].gt_instances.labels
    outputs = [[torch.randn(1, 9 * n, side, side) for side in (8, 4, 2, 1, 1)] for n in (3, 4)]
    losses = model.loss_by_feat(
        *outputs, [samples[0].gt_instances], [dict(img_shape=(64, 64), pad_shape=(64, 64))]
    )

    scores, boxes = (
        torch.cat([x.permute(0, 2, 3, 1).reshape(-1, n) for x in maps])
        for maps, n in zip(outputs, (3, 4), strict=True)
    )
    anchors = torch.cat(
        model.prior_generator.grid_priors([(s, s) for s in (8, 4, 2, 1, 1)], device='cpu')
    )
    overlaps = bbox_overlaps(anchors, truth)
    best, owner = overlaps.max(1)
    positive = best >= 0.5
    for number in range(len(truth)):
        anchor = overlaps[:, number].argmax()
        positive[anchor], owner[anchor] = True, number
    target = torch.zeros_like(scores)
    target[positive, labels[owner[positive]]] = 1
    p = torch.where(target == 1, scores.sigmoid(), 1 - scores.sigmoid())
    focal = -torch.where(target == 1, 0.25, 0.75) * (1 - p) ** 1.5 * p.log()
    count = positive.sum()
    torch.testing.assert_close(sum(losses['loss_cls']), focal.sum() / count)

    size, centre = anchors[:, 2:] - anchors[:, :2], (anchors[:, 2:] + anchors[:, :2]) / 2
    goal = truth[owner]
    encoded = torch.cat(
        [
            ((goal[:, 2:] + goal[:, :2]) / 2 - centre) / size,
            ((goal[:, 2:] - goal[:, :2]) / size).log(),
        ],
        dim=1,
    )
    error = (boxes - encoded)[positive].abs()
    huber = torch.where(error < 0.1, error**2 / 2, 0.1 * (error - 0.05))
    torch.testing.assert_close(sum(losses['loss_bbox']), 50 * huber.sum() / (4 * count))
    assert 2 <= count < len(anchors)


def test_head_refuses():
    with pytest.raises(
        ValueError, match='EfficientDetHead: anchor_generator must have 5 strides, .* got 2'
    ):
        head(anchor_generator=dict(strides=[8, 16]))
    with pytest.raises(ValueError, match='EfficientDetHead: there must be 5 maps, got 4'):
        head()(pyramid(levels=4))
