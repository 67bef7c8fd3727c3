"""A wavelet-like auto-encoder in front of any backbone, for segmentation and detection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS as ROOT_MODELS
from torch import Tensor, nn

from mmwcc.registry import MODELS

from .slim import build_slim
from .stages import decompose, set_stage

__all__ = ['WAEBackbone']

_PROBE = 64


@MODELS.register_module()
class WAEBackbone(BaseModule):
    """Run a backbone on the low part of images, and a quarter-width copy on the high part.

    Any registered backbone can be wrapped. Both parts have half the size of the image. The features
    of the two networks are concatenated at each stage, and a 1x1 convolution brings them back to
    the channels of the wrapped backbone. This convolution starts as the identity on the low part,
    so that pretrained weights of the wrapped backbone keep their meaning. Necks and heads get the
    channels that they were configured for, at twice the stride.

    The transform loss is added to the model's losses if the model is built by :func:`WAEModel`.

    Args:
        backbone: Config of the backbone to wrap.
        wae: Config of the decomposition. Defaults to mmwcc.WAE; give it
            ``init_cfg=dict(type='Pretrained', ...)`` to start from stage 1.
        high_backbone: Config of the backbone of the high part. Defaults to None, ``backbone`` with
            all widths divided by 4.
        stage: 2 trains on a frozen decomposition; 3 trains everything jointly, with gamma times the
            transform loss. Defaults to 3.
        gamma: Weight of the transform loss in stage 3. Defaults to 0.001.
        pretrained: Checkpoint that mmsegmentation's segmentors hand to their backbone; it is passed
            on to the wrapped one. Defaults to None.
        init_cfg: mmengine's initialization. Defaults to None.

    Attributes:
        channels (tuple): Channels of each output.
        strides (tuple): Stride of each output, relative to the images.

    Shape:
        (B, 3, H, W) to a tuple of the features that the wrapped backbone computes for (ceil(H / 2),
        ceil(W / 2)), or to a single tensor if the wrapped backbone returns one.

    Raises:
        ValueError: If stage, gamma or a derived high_backbone do not fit, as in
            :class:`WAEClassifier`.
        TypeError: If the wrapped backbone does not return a feature map or a sequence of them.
        ValueError: If the feature maps of high_backbone differ in size from those of the wrapped
            one.
        RuntimeError: When training in stage 3 with gamma, if the model was not built by
            :func:`WAEModel`.

    Example:
        >>> vgg = dict(type='mmwcc.VGG', depth=11, base_channels=8, out_indices=(2, 3))
        >>> backbone = WAEBackbone(vgg)
        >>> backbone.channels, backbone.strides
        ((32, 64), (16, 32))
    """

    def __init__(
        self,
        backbone: dict,
        wae: dict | None = None,
        high_backbone: dict | None = None,
        stage: int = 3,
        gamma: float = 1e-3,
        pretrained: str | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if pretrained is not None:
            backbone = dict(backbone, pretrained=pretrained)
        self.wae = ROOT_MODELS.build(wae or dict(type='mmwcc.WAE'))
        self.stage, self.gamma = stage, gamma
        set_stage('WAEBackbone', self.wae, stage, gamma)
        self.backbone = ROOT_MODELS.build(backbone)
        self.high_backbone = (
            ROOT_MODELS.build(high_backbone)
            if high_backbone is not None
            else build_slim(backbone, self.backbone, self.wae.high_channels)
        )
        self.norm_low = nn.BatchNorm2d(self.wae.low_channels, affine=False)
        self.norm_high = nn.BatchNorm2d(self.wae.high_channels, affine=False)
        low, high = (
            _probe(part, channels)
            for part, channels in (
                (self.backbone, self.wae.low_channels),
                (self.high_backbone, self.wae.high_channels),
            )
        )
        if [size for _, size in low] != [size for _, size in high]:
            raise ValueError(
                'WAEBackbone: high_backbone must return feature maps of the sizes of backbone, got '
                f'{[size for _, size in high]} and {[size for _, size in low]} for '
                f'{_PROBE}x{_PROBE} images. Use the same strides and out_indices for both.'
            )
        self.channels = tuple(channels for channels, _ in low)
        self.strides = tuple(2 * _PROBE // size[0] for _, size in low)
        self.fusions = nn.ModuleList(
            _Fusion(ours, theirs) for (ours, _), (theirs, _) in zip(low, high, strict=True)
        )
        self.attached = False
        self._collecting = False
        self._losses: list[dict[str, Tensor]] = []

    def forward(self, x: Tensor) -> tuple[Tensor, ...] | Tensor:
        """Return the fused features."""
        low, high = decompose(self.wae, x, self.stage)
        self._collect(x, low, high)
        low_features, high_features = (
            self.backbone(self.norm_low(low)),
            self.high_backbone(self.norm_high(high)),
        )
        single = isinstance(low_features, Tensor)
        features = [
            fusion(ours, theirs)
            for fusion, ours, theirs in zip(
                self.fusions, _as_tuple(low_features), _as_tuple(high_features), strict=True
            )
        ]
        if self.training and len(features) > 1:
            # A head may leave features unused; all fusions are to get a gradient, or DDP would wait
            # for them.
            nothing = 0 * sum(parameter.sum() for parameter in self.fusions.parameters())
            features = [feature + nothing for feature in features]
        return features[0] if single else tuple(features)

    def _collect(self, x: Tensor, low: Tensor, high: Tensor) -> None:
        if self.stage == 2 or not self.gamma or not self.training or not torch.is_grad_enabled():
            return
        if not self.attached:
            raise RuntimeError(
                f'WAEBackbone: the transform loss (gamma={self.gamma:g}) must have a way to the '
                'losses '
                "of the model, and there is none. Build the model by type='mmwcc.WAEModel', "
                'task_type=(the type of the model), or use gamma=0.'
            )
        if self._collecting:
            self._losses.append(self.wae.transform_losses(x, low, high))

    def begin_losses(self) -> None:
        """Start to collect the transform loss of every image."""
        self._collecting, self._losses = True, []

    def end_losses(self) -> dict[str, Any]:
        """Return the transform loss collected since :meth:`begin_losses`, weighted by gamma.

        The collected loss is then dropped.
        """
        collected, self._collecting, self._losses = self._losses, False, []
        names = collected[0] if collected else ()
        return {name: self.gamma * sum(losses[name] for losses in collected) for name in names}

    def train(self, mode: bool = True) -> WAEBackbone:
        """Switch between training and evaluation; a frozen decomposition stays in evaluation."""
        super().train(mode)
        if self.stage == 2:
            self.wae.eval()
        return self

    def __getstate__(self) -> dict:
        # A loss on its way has a graph, which can be neither copied nor pickled.
        return {**self.__dict__, '_collecting': False, '_losses': []}


class _Fusion(BaseModule):
    """Fuse two concatenated features by a 1x1 convolution to the channels of the first.

    At initialization it is the identity on the first feature.
    """

    def __init__(self, low_channels: int, high_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(low_channels + high_channels, low_channels, 1)
        self.init_weights()

    def init_weights(self) -> None:
        nn.init.dirac_(self.conv.weight)
        assert self.conv.bias is not None, 'built with one'
        nn.init.zeros_(self.conv.bias)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        return self.conv(torch.cat([low, high], dim=1))


def _as_tuple(features: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return (features,) if isinstance(features, Tensor) else features


def _probe(backbone: nn.Module, in_channels: int) -> list[tuple[int, tuple[int, int]]]:
    """Return the channels and size of every output of a backbone.

    They are found by running the backbone on one small black image.
    """
    training = backbone.training
    backbone.eval()
    with torch.no_grad():
        outputs = backbone(torch.zeros(1, in_channels, _PROBE, _PROBE))
    backbone.train(training)
    outputs = _as_tuple(outputs)
    fits = isinstance(outputs, (tuple, list)) and outputs
    if not fits or not all(isinstance(output, Tensor) and output.dim() == 4 for output in outputs):
        raise TypeError(
            'WAEBackbone: backbone must return a feature map (B, C, H, W) or a sequence of them, '
            f'got {type(outputs).__name__} from {type(backbone).__name__}. Wrap a backbone without '
            'its classifier, as with out_indices.'
        )
    return [(output.shape[1], (output.shape[2], output.shape[3])) for output in outputs]
