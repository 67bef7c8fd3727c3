"""The wavelet-like auto-encoder: a learned transform into two half-size images, and back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader
from mmengine.structures import BaseDataElement
from torch import Tensor

from mmwcc.registry import MODELS, type_name
from mmwcc.utils import is_address, reverses_channels, undo_normalization

from .coders import WAEDecoder, WAEEncoder, check_images

__all__ = ['WAE']


@MODELS.register_module()
class WAE(BaseModel):
    """Split images into I_L and I_H of half their size, and rebuild I' = D_L(I_L) + D_H(I_H).

    This wavelet-like auto-encoder is trained with the transform loss ``sum |I - I'|**2 +
    high_weight * sum |I_H|**2``. Both sums run over the elements of an image. They are averaged
    over the batch but not divided by the number of elements, and are computed in float32. The
    published learning rate (1e-6 at 224x224) and ``gamma`` (0.001) belong to this convention.

    In the first stage of training it is a model of its own. In the later stages it is a part of
    :class:`WAEClassifier` or :class:`WAEBackbone`. ``init_cfg=dict(type='Pretrained',
    checkpoint=...)`` takes the weights from a checkpoint of the first stage. Unlike other models,
    it rejects a checkpoint that does not hold all of them.

    Args:
        channels: Width of the encoder and the decoders. Defaults to 16.
        high_weight: Weight of the energy of I_H, the paper's lambda. Defaults to 1.
        data_preprocessor: Config of the preprocessor, needed to train the auto-encoder alone.
            Defaults to None.
        init_cfg: mmengine's initialization. Defaults to None, Xavier.

    Shape:
        Mode 'tensor': (B, 3, H, W) to (I_L, I_H), both (B, 3, ceil(H / 2), ceil(W / 2)). H and W
        can have any value; I' is cropped to (H, W).

    Raises:
        ValueError: If high_weight is negative.
        ValueError: In use, if the input is not (B, 3, H, W), or mode is unknown.
        FileNotFoundError: In init_weights, if the checkpoint does not exist.
        RuntimeError: In init_weights, if the checkpoint lacks weights of this model.

    Example:
        >>> low, high = WAE()(torch.rand(1, 3, 5, 7))
        >>> low.shape
        torch.Size([1, 3, 3, 4])

    Reference:
        Chen et al., "Learning a Wavelet-like Auto-Encoder to Accelerate Deep Neural Networks", AAAI
        2018.
    """

    low_channels = high_channels = 3

    def __init__(
        self,
        channels: int = 16,
        high_weight: float = 1.0,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        if high_weight < 0:
            raise ValueError(
                f'WAE: high_weight must not be negative, got {high_weight}. Use 1.0 as published.'
            )
        self.high_weight = high_weight
        self.encoder = WAEEncoder(channels)
        self.decoder_low, self.decoder_high = WAEDecoder(channels), WAEDecoder(channels)

    def decode(self, low: Tensor, high: Tensor, size: Sequence[int]) -> Tensor:
        """Rebuild I' from I_L and I_H, shape (B, 3, H, W) with H and W from ``size``."""
        decoded = self.decoder_low(low) + self.decoder_high(high)
        return decoded[:, :, : size[0], : size[1]]

    def transform_losses(self, inputs: Tensor, low: Tensor, high: Tensor) -> dict[str, Tensor]:
        """Return the two terms of the transform loss, given images and their I_L and I_H."""
        decoded = self.decode(low, high, inputs.shape[2:])
        # Sums over an image overflow in half precision.
        difference = (inputs - decoded).float().square().sum()
        return dict(
            loss_reconstruction=difference / len(inputs),
            loss_high=self.high_weight * high.float().square().sum() / len(inputs),
        )

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor'):
        """Run one of the three modes.

        Args:
            inputs: Preprocessed images, (B, 3, H, W).
            data_samples: Samples to extend in mode 'predict', of any kind. Defaults to None.
            mode: 'tensor' for (I_L, I_H), 'loss' for a dict of losses, 'predict' for samples with
                ``low``, ``high``, ``decoded`` (in units of the input) and ``decoded_pixels`` (0 to
                255, in the loader's channel order). Defaults to 'tensor'.
        """
        check_images('WAE', inputs)
        if mode not in ('tensor', 'loss', 'predict'):
            raise ValueError(
                f"WAE: mode must be 'tensor', 'loss' or 'predict', got {mode!r}. Use 'tensor' for "
                'I_L and '
                'I_H.'
            )
        low, high = self.encoder(inputs)
        if mode == 'tensor':
            return low, high
        if mode == 'loss':
            return self.transform_losses(inputs, low, high)
        decoded = self.decode(low, high, inputs.shape[2:])
        pixels = to_pixels(decoded, self.data_preprocessor)
        samples = data_samples or [BaseDataElement() for _ in inputs]
        for i, sample in enumerate(samples):
            for name, value in dict(
                low=low, high=high, decoded=decoded, decoded_pixels=pixels
            ).items():
                sample.set_field(value[i], name)
        return samples

    def init_weights(self) -> None:
        """Initialize the weights, or load all of them from a checkpoint of the first stage.

        The checkpoint is the one that init_cfg names.
        """
        if is_pretrained(self.init_cfg):
            self._check_checkpoint(self.init_cfg['checkpoint'], self.init_cfg.get('prefix') or '')
        super().init_weights()

    def _check_checkpoint(self, path: str, prefix: str) -> None:
        if not is_address(path) and not os.path.isfile(os.path.expanduser(path)):
            raise FileNotFoundError(
                f'WAE: init_cfg.checkpoint must be a checkpoint of stage 1, got {path}, which does '
                'not exist. Train stage 1 first (tools/train_stages.py runs all stages in order), '
                'or name another one.'
            )
        checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu')
        weights = checkpoint.get('state_dict', checkpoint)
        start = f'{prefix}.' if prefix and not prefix.endswith('.') else prefix
        missing = [
            key
            for key, value in self.state_dict().items()
            if getattr(weights.get(start + key), 'shape', None) != value.shape
        ]
        if missing:
            raise RuntimeError(
                'WAE: init_cfg.checkpoint must have all weights of the auto-encoder, got '
                f'{path} without a fitting {start}{missing[0]} ({len(missing)} of '
                f'{len(self.state_dict())} are missing). Name a checkpoint of mmwcc.WAE, or give '
                "init_cfg a prefix such as 'decomposition.'."
            )


def is_pretrained(init_cfg) -> bool:
    """Return whether an initialization takes weights from a checkpoint."""
    kind = type_name(init_cfg.get('type')) if isinstance(init_cfg, dict) else ''
    return kind.rpartition('.')[2] in ('Pretrained', 'PretrainedInit')


def to_pixels(images: Tensor, data_preprocessor: Any) -> Tensor:
    """Undo the normalization of a preprocessor.

    Images (B, 3, H, W) in the units of the network become values from 0 to 255, in the channel
    order of the loader.
    """
    images = undo_normalization(images, data_preprocessor)
    return (images.flip(1) if reverses_channels(data_preprocessor) else images).clamp(0, 255)
