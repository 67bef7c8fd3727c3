"""Bicubic interpolation as in super-resolution benchmarks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ['resize_bicubic']


def resize_bicubic(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images by antialiased cubic convolution (a = -0.5), like MATLAB's imresize and Pillow.

    At the border the kernel is cut off and normalized, as Pillow does. MATLAB mirrors the image
    there.

    Args:
        images: Pixels from 0 to 255, (B, C, H, W) or (C, H, W) uint8.
        size: Height and width of the result.

    Returns:
        Rounded pixels, uint8.

    Example:
        >>> resize_bicubic(torch.full((1, 2, 4), 9, dtype=torch.uint8), (1, 2))
        tensor([[[9, 9]]], dtype=torch.uint8)
    """
    batch = images if images.dim() == 4 else images[None]
    resized = (
        F.interpolate(batch.float(), size, mode='bicubic', antialias=True)
        .round()
        .clamp(0, 255)
        .byte()
    )
    return resized if images.dim() == 4 else resized[0]
