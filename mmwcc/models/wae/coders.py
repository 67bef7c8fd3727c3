"""The networks of the wavelet-like auto-encoder: the encoder, and the decoder of one part."""

from __future__ import annotations

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmwcc.registry import MODELS

__all__ = ['WAEDecoder', 'WAEEncoder', 'check_images']

_XAVIER = dict(type='Xavier', layer=['Conv2d', 'ConvTranspose2d'], distribution='uniform')


def check_images(owner: str, x: Tensor) -> None:
    """Raise an error for anything but a batch of non-empty RGB images.

    Raises:
        ValueError: If ``x`` is not of shape (B, 3, H, W) with H and W at least 1.
    """
    if x.dim() != 4 or x.shape[1] != 3 or min(x.shape[2:]) < 1:
        raise ValueError(
            f'{owner}: the input must be images of shape (B, 3, H, W) with H and W at least 1, got '
            f'{tuple(x.shape)}. Repeat a grey channel three times, or add a batch dimension.'
        )


@MODELS.register_module()
class WAEEncoder(BaseModule):
    """Split images into a low and a high part of half their size.

    The encoder has three 3x3 convolutions with ReLU, then two parallel linear 3x3 convolutions of
    stride 2. These two are stored and computed as one convolution with twice the outputs. On its
    own, without any transform loss, the encoder is the decomposition of the paper's baseline
    "Decomposition + CNN".

    Args:
        channels: Width. Defaults to 16.
        init_cfg: mmengine's initialization. Defaults to Xavier.

    Shape:
        (B, 3, H, W) to (low, high), both (B, 3, ceil(H / 2), ceil(W / 2)).

    Raises:
        ValueError: In use, if the input is not (B, 3, H, W) with H and W at least 1.

    Reference:
        Chen et al., "Learning a Wavelet-like Auto-Encoder to Accelerate Deep Neural Networks", AAAI
        2018.
    """

    low_channels = high_channels = 3

    def __init__(self, channels: int = 16, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg or dict(_XAVIER))
        self.body = nn.Sequential(
            nn.Conv2d(3, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.split = nn.Conv2d(channels, 6, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the low and the high part."""
        check_images(type(self).__name__, x)
        if (
            x.device.type == 'cpu'
            and not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
        ):
            # One image at a time stays in the cache: the maps of 16 channels at full size are what
            # this costs.
            parts = torch.cat([self.split(self.body(image)) for image in x.split(1)])
        else:
            parts = self.split(self.body(x))
        low, high = parts.split(3, dim=1)
        return low, high


class WAEDecoder(BaseModule):
    """Enlarge one part to twice its size.

    The decoder is a 4x4 transposed convolution of stride 2, followed by three 3x3 convolutions.

    Args:
        channels: Width. Defaults to 16.
        init_cfg: mmengine's initialization. Defaults to Xavier.

    Shape:
        (B, 3, H, W) to (B, 3, 2 H, 2 W).
    """

    def __init__(self, channels: int = 16, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg or dict(_XAVIER))
        self.body = nn.Sequential(
            nn.ConvTranspose2d(3, channels, 4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, 3, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)
