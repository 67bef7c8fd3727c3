"""Top-k accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric

from mmwcc.registry import METRICS

__all__ = ['Accuracy']


@METRICS.register_module()
class Accuracy(BaseMetric):
    """Percentage of images whose label is among the k classes with the highest scores.

    The results are called ``accuracy/top1``, ``accuracy/top5`` and so on. Samples are those of the
    classifiers in mmwcc and mmpretrain, with ``gt_label`` (1, ) and ``pred_score`` (classes, ).

    Args:
        topk: The values of k. Defaults to (1, 5).
        score: Field of the samples that holds the scores. :class:`mmwcc.models.WAEClassifier` also
            writes ``pred_score_low``. Defaults to 'pred_score'.
        collect_device: Device on which the ranks exchange results, 'cpu' or 'gpu'. Defaults to
            'cpu'.
        prefix: Prefix of the names of the results. Defaults to None, 'accuracy'.

    Raises:
        ValueError: If topk is empty or holds a number below 1.
        ValueError: In use, if a k is larger than the number of classes.
        KeyError: In use, if samples lack a field.

    Example:
        >>> metric = Accuracy(topk=1)
        >>> label, score = torch.tensor([1]), torch.tensor([0.2, 0.8])
        >>> metric.process(None, [dict(gt_label=label, pred_score=score)])
        >>> metric.evaluate(size=1)
        {'accuracy/top1': 100.0}
    """

    default_prefix = 'accuracy'

    def __init__(
        self,
        topk: int | Sequence[int] = (1, 5),
        score: str = 'pred_score',
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.topk = (topk,) if isinstance(topk, int) else tuple(topk)
        if not self.topk or min(self.topk) < 1:
            raise ValueError(
                f'Accuracy: topk must hold numbers of at least 1, got {topk}. Use topk=(1, 5).'
            )
        self.score = score

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Record the rank of each image's label among the scores."""
        for sample in data_samples:
            for field in ('gt_label', self.score):
                if field not in sample:
                    raise KeyError(
                        f'Accuracy: every sample must have {field}, got {sorted(sample)}. Pack '
                        'labels with mmwcc.PackClsInputs and evaluate a classifier.'
                    )
            score, label = sample[self.score].float().cpu(), int(sample['gt_label'])
            if max(self.topk) > len(score):
                raise ValueError(
                    f'Accuracy: topk must not exceed the number of classes, got {max(self.topk)} '
                    f'of {len(score)} classes. Use topk=(1, ).'
                )
            # Ties count against the prediction, so that a network that gives all classes the same
            # score is not counted as right. A score that is not a number is not counted as right
            # either.
            better = ~(score < score[label])
            self.results.append(
                int(better.sum()) - 1 if not torch.isnan(score[label]) else len(score)
            )

    def compute_metrics(self, results: list[int]) -> dict[str, float]:
        """Return the percentages under the names top1, top5, …"""
        ranks = torch.tensor(results)
        return {f'top{k}': 100 * float((ranks < k).double().mean()) for k in self.topk}
