"""What a data preprocessor did to the images, and the way back to pixels."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ['reverses_channels', 'undo_normalization']

# How the data preprocessors of mmengine, mmsegmentation and mmwcc remember that they reverse the
# channels.
_REVERSED = ('_channel_conversion', 'channel_conversion', 'bgr_to_rgb')


def reverses_channels(data_preprocessor: nn.Module | None) -> bool:
    """Tell whether a data preprocessor reverses the order of the channels."""
    return any(getattr(data_preprocessor, name, False) for name in _REVERSED)


def undo_normalization(images: Tensor, data_preprocessor: nn.Module | None = None) -> Tensor:
    """Undo the normalization of images.

    Args:
        images: Images (..., C, H, W).
        data_preprocessor: The module that subtracted a mean and divided by a standard deviation.
            Defaults to None: nothing to undo.

    Returns:
        The images in units of pixels.
    """
    preprocessor: Any = data_preprocessor
    if getattr(preprocessor, 'mean', None) is None:
        return images
    return images * preprocessor.std + preprocessor.mean
