import pytest
import torch
from mmengine.registry import METRICS

from mmwcc.evaluation import Accuracy


def evaluate(metric, scores, labels):
    samples = [
        dict(
            gt_label=torch.tensor([label]),
            pred_score=torch.tensor(score),
            other=torch.tensor(score).flip(0),
        )
        for score, label in zip(scores, labels, strict=True)
    ]
    metric.process(None, samples)
    return metric.evaluate(len(samples))


SCORES = [[0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.4, 0.35, 0.25]]


def test_counts_labels_among_the_k_best():
    metric = METRICS.build(dict(type='mmwcc.Accuracy', topk=(1, 2, 3)))
    assert evaluate(metric, SCORES, [2, 1, 0, 0]) == {
        'accuracy/top1': 50.0,
        'accuracy/top2': 75.0,
        'accuracy/top3': 100.0,
    }


def test_other_scores_and_prefix():
    assert evaluate(Accuracy(topk=1, score='other', prefix='low'), SCORES, [0, 2, 0, 1]) == {
        'low/top1': 75.0
    }


def test_a_network_that_cannot_decide_is_not_right():
    assert evaluate(Accuracy(topk=(1, 3)), [[0.5, 0.5, 0.0], [float('nan')] * 3], [0, 0]) == {
        'accuracy/top1': 0.0,
        'accuracy/top3': 50.0,
    }


def test_errors():
    with pytest.raises(ValueError, match=r'topk must hold numbers of at least 1, got \(0, 5\)'):
        Accuracy(topk=(0, 5))
    with pytest.raises(
        ValueError, match='topk must not exceed the number of classes, got 5 of 3 classes'
    ):
        evaluate(Accuracy(), SCORES, [0] * 4)
    with pytest.raises(KeyError, match='every sample must have gt_label'):
        Accuracy().process(None, [dict(pred_score=torch.ones(5))])
