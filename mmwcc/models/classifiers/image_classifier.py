"""An image classifier built on mmengine, with mmpretrain's conventions."""

from __future__ import annotations

from mmengine.model import BaseModel
from mmengine.registry import MODELS as ROOT_MODELS
from torch import Tensor

from mmwcc.registry import MODELS

__all__ = ['BaseClassifier', 'ImageClassifier']


class BaseClassifier(BaseModel):
    """Provide the three modes of OpenMMLab models.

    Subclasses define loss, predict, and extract_feat or _forward.
    """

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor'):
        """Run one of the three modes.

        Args:
            inputs: Preprocessed images, (B, C, H, W).
            data_samples: One sample for each image; 'loss' needs their ``gt_label``. Defaults to
                None.
            mode: 'tensor' for class scores, 'loss' for a dict of losses, 'predict' for samples.
                Defaults to 'tensor'.

        Raises:
            ValueError: If mode is none of the three.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'tensor':
            return self._forward(inputs)
        raise ValueError(
            f"{type(self).__name__}: mode must be 'tensor', 'loss' or 'predict', got {mode!r}. Use "
            "'tensor' for class scores."
        )


@MODELS.register_module()
class ImageClassifier(BaseClassifier):
    """Classify images with a backbone, a neck and a head.

    The model follows mmpretrain's conventions. Backbones return a tensor or a tuple of tensors, of
    which the head takes the last. Samples carry ``gt_label``, ``pred_score`` and ``pred_label``.
    Where both packages are installed, the preprocessors, backbones, heads, pipelines and metrics of
    either one work in the other.

    Args:
        backbone: Config of the backbone, of any package.
        head: Config of the head.
        neck: Config of the module between them. Defaults to None, nothing.
        data_preprocessor: Config of the preprocessor. Defaults to None,
            :class:`ClsDataPreprocessor` with its default arguments.
        init_cfg: mmengine's initialization. Defaults to None.

    Shape:
        (B, 3, H, W) to (B, num_classes).

    Example:
        >>> head = dict(type='mmwcc.LinearClsHead', num_classes=10, in_channels=512)
        >>> model = ImageClassifier(dict(type='mmwcc.VGG', depth=11), head,
        ...                         neck=dict(type='mmwcc.GlobalAveragePooling'))
        >>> model(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        backbone: dict,
        head: dict,
        neck: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor or dict(type='mmwcc.ClsDataPreprocessor'), init_cfg)
        self.backbone = ROOT_MODELS.build(backbone)
        if neck is not None:
            self.neck = ROOT_MODELS.build(neck)
        self.head = ROOT_MODELS.build(head)

    @property
    def with_neck(self) -> bool:
        """Whether there is a neck."""
        return hasattr(self, 'neck')

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the features that the head takes."""
        features = self.backbone(inputs)
        features = (features,) if isinstance(features, Tensor) else tuple(features)
        return self.neck(features) if self.with_neck else features

    def _forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.extract_feat(inputs))

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Return the head's losses."""
        return self.head.loss(self.extract_feat(inputs), data_samples)

    def predict(self, inputs: Tensor, data_samples: list | None = None) -> list:
        """Return one sample for each image, with ``pred_score`` and ``pred_label``."""
        return self.head.predict(self.extract_feat(inputs), data_samples)
