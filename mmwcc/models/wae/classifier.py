"""Classification on the two parts of a decomposition."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.registry import MODELS as ROOT_MODELS
from torch import Tensor, nn

from mmwcc.models.classifiers import BaseClassifier
from mmwcc.models.classifiers.heads import write_predictions
from mmwcc.registry import MODELS

from .slim import build_slim
from .stages import decompose, set_stage

__all__ = ['WAEClassifier']


@MODELS.register_module()
class WAEClassifier(BaseClassifier):
    """Classify with a network on the low part and a quarter-width network on the high part.

    Let f_L and f_H be the flattened features of the two networks. Then ``s_L = head(f_L)`` and
    ``s_c = fused_head(concat(f_L, f_H))``. The class scores are ``(s_L + s_c) / 2``, and the losses
    are those of both heads. Samples also get ``pred_score_low`` and ``pred_label_low``, computed
    from s_L alone. Both parts are normalized by a BatchNorm without affine parameters.

    Args:
        decomposition: Config of the module that splits the images: mmwcc.WAE, or for baselines
            mmwcc.WAEEncoder, mmwcc.WaveletDecomposition or mmwcc.ResizeDecomposition.
        backbone: Config of the network on the low part.
        head: Config of the head of f_L.
        fused_head: Config of the head of f_L and f_H. Defaults to None: the high part is not used.
        high_backbone: Config of the network on the high part. Defaults to None, ``backbone`` with
            all widths divided by 4.
        neck: Config of the module after each network, such as mmwcc.GlobalAveragePooling. Defaults
            to None, nothing.
        stage: 2 trains the networks on a frozen decomposition; 3 trains everything jointly, with
            gamma times the transform loss. (Stage 1 trains mmwcc.WAE alone.) Defaults to 3.
        gamma: Weight of the transform loss in stage 3; must be 0 for decompositions that have none.
            Defaults to 0.001.
        data_preprocessor: Config of the preprocessor. Defaults to None, mmwcc.ClsDataPreprocessor
            with its default arguments.
        init_cfg: mmengine's initialization. Defaults to None.

    Shape:
        (B, 3, H, W) to (B, num_classes).

    Raises:
        ValueError: If stage is neither 2 nor 3, or gamma is negative, or gamma is positive although
            there is no transform loss.
        ValueError: If high_backbone is given without fused_head.
        ValueError: If high_backbone is None and a quarter-width backbone cannot be derived.

    Reference:
        Chen et al., "Learning a Wavelet-like Auto-Encoder to Accelerate Deep Neural Networks", AAAI
        2018.
    """

    def __init__(
        self,
        decomposition: dict,
        backbone: dict,
        head: dict,
        fused_head: dict | None = None,
        high_backbone: dict | None = None,
        neck: dict | None = None,
        stage: int = 3,
        gamma: float = 1e-3,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor or dict(type='mmwcc.ClsDataPreprocessor'), init_cfg)
        if fused_head is None and high_backbone is not None:
            raise ValueError(
                'WAEClassifier: fused_head must be given with high_backbone, got None. Without it '
                'nothing uses the high part; leave high_backbone out to classify by the low part '
                'alone.'
            )
        self.decomposition = ROOT_MODELS.build(decomposition)
        self.stage, self.gamma = stage, gamma
        set_stage('WAEClassifier', self.decomposition, stage, gamma)
        self.norm_low = nn.BatchNorm2d(self.decomposition.low_channels, affine=False)
        self.backbone = ROOT_MODELS.build(backbone)
        self.neck = ROOT_MODELS.build(neck) if neck is not None else nn.Identity()
        self.head = ROOT_MODELS.build(head)
        self.fused_head: Any = None
        if fused_head is not None:
            channels = self.decomposition.high_channels
            self.norm_high = nn.BatchNorm2d(channels, affine=False)
            self.high_backbone = (
                ROOT_MODELS.build(high_backbone)
                if high_backbone is not None
                else build_slim(backbone, self.backbone, channels)
            )
            self.fused_head = ROOT_MODELS.build(fused_head)

    def train(self, mode: bool = True) -> WAEClassifier:
        """Switch between training and evaluation; a frozen decomposition stays in evaluation."""
        super().train(mode)
        if self.stage == 2:
            self.decomposition.eval()
        return self

    def _features(self, backbone: nn.Module, part: Tensor) -> Tensor:
        features = backbone(part)
        features = (features,) if isinstance(features, Tensor) else tuple(features)
        return self.neck(features)[-1].flatten(1)

    def extract_parts(
        self, inputs: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor], tuple[Tensor] | None]:
        """Return the low part, the high part, the input of the head, and that of the fused head."""
        low, high = decompose(self.decomposition, inputs, self.stage)
        low_feature = self._features(self.backbone, self.norm_low(low))
        if self.fused_head is None:
            return low, high, (low_feature,), None
        high_feature = self._features(self.high_backbone, self.norm_high(high))
        return low, high, (low_feature,), (torch.cat([low_feature, high_feature], dim=1),)

    def scores(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores before the softmax: first the averaged ones, then s_L."""
        _, _, low_feature, feature = self.extract_parts(inputs)
        low_score = self.head(low_feature)
        return low_score if feature is None else (
            low_score + self.fused_head(feature)
        ) / 2, low_score

    def _forward(self, inputs: Tensor) -> Tensor:
        return self.scores(inputs)[0]

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Return the losses ``low.loss``, ``fused.loss`` and, in stage 3, ``transform.*``.

        The terms ``transform.*`` are weighted by gamma.
        """
        low, high, low_feature, feature = self.extract_parts(inputs)
        parts = dict(low=self.head.loss(low_feature, data_samples))
        if feature is not None:
            parts['fused'] = self.fused_head.loss(feature, data_samples)
        if self.stage == 3 and self.gamma:
            losses = self.decomposition.transform_losses(inputs, low, high)
            parts['transform'] = {name: self.gamma * value for name, value in losses.items()}
        return {
            f'{part}.{name}': value
            for part, losses in parts.items()
            for name, value in losses.items()
        }

    def predict(self, inputs: Tensor, data_samples: list | None = None) -> list:
        """Return a sample for each image, with the averaged predictions and those of s_L alone."""
        score, low_score = self.scores(inputs)
        return write_predictions(low_score, write_predictions(score, data_samples), suffix='_low')
