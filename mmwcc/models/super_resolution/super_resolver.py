"""The mmengine model around a super-resolution network."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmwcc.registry import MODELS

__all__ = ['SuperResolver']


@MODELS.register_module()
class SuperResolver(BaseModel):
    """Train and run a network that enlarges images.

    Samples carry the original as ``gt_img`` and get ``pred_img``, both (3, H, W) uint8.

    Args:
        generator: Config of the network.
        pixel_loss: Config of a loss that is called with the output of the network and the
            normalized original. Defaults to None, the mean absolute error.
        self_ensemble: Whether predictions are averaged over the eight flips and rotations. Defaults
            to False.
        data_preprocessor: Config of the preprocessor. Defaults to None, :class:`SRDataPreprocessor`
            with its default arguments.
        init_cfg: mmengine's initialization. Defaults to None.

    Shape:
        (B, 3, H, W), preprocessed, to (B, 3, scale * H, scale * W), in the same normalized units.

    Example:
        >>> model = SuperResolver(dict(type='mmwcc.EDSR', mid_channels=8, num_blocks=1))
        >>> data = model.data_preprocessor(dict(inputs=[torch.zeros(3, 4, 6, dtype=torch.uint8)]))
        >>> model(**data, mode='predict')[0].pred_img.shape
        torch.Size([3, 8, 12])
    """

    def __init__(
        self,
        generator: dict,
        pixel_loss: dict | None = None,
        self_ensemble: bool = False,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor or dict(type='mmwcc.SRDataPreprocessor'), init_cfg)
        self.generator = ROOT_MODELS.build(generator)
        self.pixel_loss = nn.L1Loss() if pixel_loss is None else ROOT_MODELS.build(pixel_loss)
        self.self_ensemble = self_ensemble

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = 'tensor'):
        """Run one of the three modes.

        Args:
            inputs: Preprocessed images, (B, 3, H, W).
            data_samples: One sample for each image; 'loss' needs their ``gt_img``. Defaults to
                None.
            mode: 'tensor' for the output of the network, 'loss' for a dict of losses, 'predict' for
                samples. Defaults to 'tensor'.

        Raises:
            ValueError: If mode is none of the three.
            ValueError: If an original is not scale times as large as its input.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'tensor':
            return self.generator(inputs)
        raise ValueError(
            f"SuperResolver: mode must be 'tensor', 'loss' or 'predict', got {mode!r}. Use "
            "'tensor' for "
            'what the network returns.'
        )

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Return ``dict(loss_pixel=...)``."""
        enlarged = self.generator(inputs)
        originals = torch.stack([sample.gt_img for sample in data_samples])
        if originals.shape != enlarged.shape:
            raise ValueError(
                'SuperResolver: gt_img must have the size that the network returns, got '
                f'{tuple(originals.shape[-2:])} instead of {tuple(enlarged.shape[-2:])}. Use the '
                'same scale in the pipeline as in the network.'
            )
        return dict(
            loss_pixel=self.pixel_loss(enlarged, self.data_preprocessor.from_pixels(originals))
        )

    def predict(self, inputs: Tensor, data_samples: list | None = None) -> list:
        """Return one sample for each image with ``pred_img``; new samples unless given."""
        enlarged = self._ensemble(inputs) if self.self_ensemble else self.generator(inputs)
        images = self.data_preprocessor.to_pixels(enlarged.float()).clamp(0, 255).round().byte()
        samples = data_samples or [BaseDataElement() for _ in images]
        for sample, image in zip(samples, images, strict=True):
            sample.set_data(dict(pred_img=image))
        return samples

    def _ensemble(self, inputs: Tensor) -> Tensor:
        """Average over the eight flips and rotations, undoing each one after the network."""
        total: Any = 0
        for turns in range(4):
            for mirrored in (inputs, inputs.flip(3)):
                enlarged = self.generator(mirrored.rot90(turns, (2, 3))).rot90(-turns, (2, 3))
                total = total + (enlarged if mirrored is inputs else enlarged.flip(3))
        return total / 8
