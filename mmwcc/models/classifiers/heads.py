"""Pooling, heads and losses that turn features into classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmwcc.registry import MODELS

__all__ = [
    'CrossEntropyLoss',
    'GlobalAveragePooling',
    'LinearClsHead',
    'targets',
    'write_predictions',
]


@MODELS.register_module()
class CrossEntropyLoss(nn.Module):
    """Compute the softmax cross entropy of class scores, averaged over the batch.

    Args:
        label_smoothing: Fraction of the target spread over all classes, in [0, 1). Defaults to 0.
        loss_weight: Factor of the loss. Defaults to 1.

    Raises:
        ValueError: If label_smoothing is outside [0, 1).

    Example:
        >>> CrossEntropyLoss()(torch.zeros(1, 2), torch.tensor([0])).exp().item()
        2.0
    """

    def __init__(self, label_smoothing: float = 0.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                f'CrossEntropyLoss: label_smoothing must be in [0, 1), got {label_smoothing}. Use '
                '0.0 for hard targets.'
            )
        self.label_smoothing, self.loss_weight = label_smoothing, loss_weight

    def forward(self, scores: Tensor, target: Tensor) -> Tensor:
        """Return the loss of scores (B, classes) for labels (B, ), a scalar."""
        return self.loss_weight * F.cross_entropy(
            scores, target, label_smoothing=self.label_smoothing
        )


@MODELS.register_module()
class GlobalAveragePooling(nn.Module):
    """Average every feature map over its positions.

    Shape:
        A tuple of (B, C, H, W) to a tuple of (B, C).
    """

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(feature.mean((2, 3)) for feature in features)


@MODELS.register_module()
class LinearClsHead(BaseModule):
    """Score classes from the last feature by one or more linear layers.

    Several layers have ReLU and dropout between them.

    Args:
        num_classes: Number of classes.
        in_channels: Length of the flattened feature.
        hidden_channels: Widths of the layers before the last one. Defaults to (), a single linear
            layer.
        dropout: Probability of dropping a hidden unit while training. Defaults to 0.
        loss: Config of a loss called with scores and labels. Defaults to None,
            :class:`CrossEntropyLoss`.
        init_cfg: mmengine's initialization. Defaults to None, torch's.

    Shape:
        A tensor (B, ...) or a tuple of tensors, of which the last is flattened to (B, in_channels);
        to (B, num_classes).

    Raises:
        ValueError: If num_classes is less than 1.
        ValueError: In use, if a flattened feature does not have in_channels entries.

    Example:
        >>> LinearClsHead(10, 64)((torch.rand(2, 64), )).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        hidden_channels: Sequence[int] = (),
        dropout: float = 0.0,
        loss: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if num_classes < 1:
            raise ValueError(
                f'LinearClsHead: num_classes must be at least 1, got {num_classes}. Use the number '
                'of classes of the data set.'
            )
        self.num_classes, self.in_channels = num_classes, in_channels
        layers, width = [], in_channels
        for hidden in hidden_channels:
            layers += [nn.Linear(width, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout)]
            width = hidden
        self.fc = (
            nn.Sequential(*layers, nn.Linear(width, num_classes))
            if layers
            else nn.Linear(width, num_classes)
        )
        self.loss_module = CrossEntropyLoss() if loss is None else ROOT_MODELS.build(loss)

    def forward(self, features: Tensor | tuple[Tensor, ...]) -> Tensor:
        """Return the scores of every class, before the softmax."""
        feature = (features if isinstance(features, Tensor) else features[-1]).flatten(1)
        if feature.shape[1] != self.in_channels:
            raise ValueError(
                'LinearClsHead: in_channels must be the length of the flattened feature, got '
                f'in_channels={self.in_channels} and a feature of {feature.shape[1]}. Set '
                f'in_channels={feature.shape[1]}, or pool with mmwcc.GlobalAveragePooling first.'
            )
        return self.fc(feature)

    def loss(self, features: Tensor | tuple[Tensor, ...], data_samples: list) -> dict[str, Tensor]:
        """Return ``dict(loss=...)`` for samples with ``gt_label``."""
        scores = self(features)
        return dict(loss=self.loss_module(scores, targets(data_samples, scores)))

    def predict(
        self, features: Tensor | tuple[Tensor, ...], data_samples: list | None = None
    ) -> list:
        """Return one sample for each image.

        Samples get ``pred_score`` (classes, ) and ``pred_label`` (1, ).
        """
        return write_predictions(self(features), data_samples)


def targets(data_samples: list, scores: Tensor) -> Tensor:
    """Return the labels of samples, shape (B, ), on the device of ``scores``.

    Raises:
        ValueError: If a label is not one of the classes that ``scores`` has.
    """
    labels = torch.cat([sample.gt_label for sample in data_samples]).to(scores.device)
    classes = scores.shape[1]
    # On a GPU this check would force a synchronization; cross_entropy's own assertion has to do.
    if (
        labels.device.type == 'cpu'
        and len(labels)
        and not 0 <= int(labels.min()) <= int(labels.max()) < classes
    ):
        raise ValueError(
            f'LinearClsHead: labels must be in [0, {classes - 1}] for num_classes={classes}, got '
            f'{int(labels.min())} to {int(labels.max())}. Set num_classes to the number of classes '
            'of the data set.'
        )
    return labels


def write_predictions(scores: Tensor, data_samples: list | None = None, suffix: str = '') -> list:
    """Write softmax scores and the label with the largest score into samples.

    Args:
        scores: Scores before the softmax, (B, classes).
        data_samples: Samples to extend. Defaults to None: new samples are made.
        suffix: Appended to the names ``pred_score`` and ``pred_label``. Defaults to ''.

    Returns:
        The samples.
    """
    samples = data_samples or [BaseDataElement() for _ in scores]
    for sample, score in zip(samples, scores.float().softmax(1), strict=True):
        sample.set_field(score, f'pred_score{suffix}')
        sample.set_field(score.argmax(0, keepdim=True), f'pred_label{suffix}')
    return samples
