"""Decompositions that are not learned, for the baselines: a wavelet transform, and resizing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from mmwcc.functional import wavedec2
from mmwcc.registry import MODELS

from .coders import check_images

__all__ = ['ResizeDecomposition', 'WaveletDecomposition']


def _even(x: Tensor) -> Tensor:
    """Repeat the last row or column where a size is odd."""
    return F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2), mode='replicate')


@MODELS.register_module()
class WaveletDecomposition(BaseModule):
    """Split images by one level of a fixed wavelet transform.

    The low part is the approximation cA. The high part is cH, cV and cD, concatenated along the
    channels. This is the decomposition of the paper's baseline "Wavelet + CNN". Borders are
    periodized. If a size is odd, the last row or column is repeated first.

    Args:
        wavelet: Name of a PyWavelets wavelet. Defaults to 'bior4.4', the CDF 9/7 wavelet.

    Shape:
        (B, 3, H, W) to (B, 3, ceil(H / 2), ceil(W / 2)) and (B, 9, ceil(H / 2), ceil(W / 2)).

    Raises:
        ValueError: In use, if the input is not (B, 3, H, W).

    Example:
        >>> low, high = WaveletDecomposition('haar')(torch.ones(1, 3, 4, 4))
        >>> low.unique(), high.abs().max()
        (tensor([2.]), tensor(0.))
    """

    low_channels, high_channels = 3, 9

    def __init__(self, wavelet: str = 'bior4.4', init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.wavelet = wavelet

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return cA and the three details."""
        check_images('WaveletDecomposition', x)
        approximation, details = wavedec2(_even(x), self.wavelet, levels=1)
        return approximation, torch.cat(details, dim=1)

    def extra_repr(self) -> str:
        return f'wavelet={self.wavelet!r}'


@MODELS.register_module()
class ResizeDecomposition(BaseModule):
    """Halve images by averaging 2x2 pixels, and keep what this loses as the high part.

    The high part holds three differences for each colour channel. Use this decomposition for
    networks on plainly resized images. If a size is odd, the last row or column is repeated first.

    Shape:
        (B, 3, H, W) to (B, 3, ceil(H / 2), ceil(W / 2)) and (B, 9, ceil(H / 2), ceil(W / 2)).

    Raises:
        ValueError: In use, if the input is not (B, 3, H, W).

    Example:
        >>> ResizeDecomposition()(torch.full((1, 3, 4, 4), 0.5))[0].unique()
        tensor([0.5000])
    """

    low_channels, high_channels = 3, 9

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the half-size image and the differences."""
        check_images('ResizeDecomposition', x)
        approximation, details = wavedec2(_even(x), 'haar', levels=1)
        return approximation / 2, torch.cat(details, dim=1) / 2
