"""Wavelet compressed convolution as a function."""

from __future__ import annotations

import math

from torch import Tensor

from mmwcc.kernels import is_channels_last

from .rows import multiply_rows
from .shrinkage import SELECTIONS, WAVELETS, pack, unpack
from .wavelets import filter_bank

__all__ = ['check_compression', 'wavelet_compressed_conv2d']


def check_compression(
    owner: str, *, keep_ratio: float, levels: int, wavelet: str, selection: str
) -> None:
    """Refuse compression arguments that no layer can have.

    Args:
        owner: Name of the class or function that the error message names.
        keep_ratio: As in :func:`wavelet_compressed_conv2d`.
        levels: Likewise.
        wavelet: Likewise.
        selection: Likewise.

    Raises:
        TypeError: If keep_ratio is not a number or levels not an integer.
        ValueError: If keep_ratio is not in (0, 1], levels is below 1, or wavelet or selection is
            unknown.
    """
    check_keep_ratio(owner, keep_ratio)
    if isinstance(levels, bool) or not isinstance(levels, int):
        raise TypeError(
            f'{owner}: levels must be an integer, got {levels!r}. Use levels=3 as the paper does.'
        )
    if levels < 1:
        raise ValueError(
            f'{owner}: levels must be at least 1, got {levels}. Use levels=3 as the paper does.'
        )
    try:
        filter_bank(wavelet)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{owner}: wavelet must be a discrete wavelet of PyWavelets, got {wavelet!r}. Use one '
            f'of {", ".join(WAVELETS)}.'
        ) from error
    check_selection(owner, selection)


def check_selection(owner: str, selection: str) -> None:
    """Refuse an unknown selection policy; see :func:`check_compression`."""
    if selection not in SELECTIONS:
        raise ValueError(
            f'{owner}: selection must be one of {", ".join(SELECTIONS)}, got {selection!r}. Use '
            "'energy' to keep the largest coefficients of each image."
        )


def check_keep_ratio(owner: str, keep_ratio: float) -> None:
    """Refuse a keep_ratio that is not a number in (0, 1]; see :func:`check_compression`."""
    if isinstance(keep_ratio, bool) or not isinstance(keep_ratio, (int, float)):
        raise TypeError(
            f'{owner}: keep_ratio must be a number, got {keep_ratio!r}. Use 0.5 to keep half of '
            'the coefficients.'
        )
    if not (math.isfinite(keep_ratio) and 0 < keep_ratio <= 1):
        raise ValueError(
            f'{owner}: keep_ratio must be in (0, 1], got {keep_ratio}. It is a fraction: use '
            '0.5 for 50 %, and 1.0 to keep every coefficient.'
        )


def wavelet_compressed_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    keep_ratio: float,
    levels: int = 3,
    wavelet: str = 'haar',
    selection: str = 'energy',
) -> Tensor:
    """Convolve 1x1 on the jointly largest wavelet coefficients: ``y = H^T T^T K T H x + bias``.

    Args:
        x: Feature map, shape (B, C, H, W), any H and W, contiguous or channels_last.
        weight: Point-wise kernel, shape (O, C, 1, 1).
        bias: Added once in the spatial domain, shape (O,). Defaults to None.
        keep_ratio: Fraction of wavelet positions to keep in each image, in (0, 1];
            k = ceil(keep_ratio * N).
        levels: Depth of the wavelet transform, at least 1. Defaults to 3.
        wavelet: 'haar', or a wavelet of PyWavelets ('db2', 'bior2.2', ...). Defaults to 'haar'.
        selection: 'energy' keeps the k positions of largest energy over all channels, and among
            equals the lower positions. 'coarse' keeps the k coarsest. Defaults to 'energy'.

    Returns:
        Feature map, shape (B, O, H, W), in the memory format of ``x``. The gradient is taken at the
        same positions. For it, the kept coefficients, (B, k, C), and four bytes per position are
        saved, never ``x``.

    Raises:
        TypeError: If keep_ratio is not a number or levels not an integer.
        ValueError: If keep_ratio is not in (0, 1], levels is below 1, wavelet or selection is
            unknown, x is not 4-D or weight does not fit it.

    Example:
        >>> x, weight = torch.randn(1, 8, 16, 16), torch.randn(4, 8, 1, 1)
        >>> y = wavelet_compressed_conv2d(x, weight, keep_ratio=1.0)
        >>> torch.allclose(y, torch.nn.functional.conv2d(x, weight), atol=1e-5)
        True

    Reference:
        Finder et al., Wavelet Feature Maps Compression for Image-to-Image CNNs, NeurIPS 2022,
        equation (9).
    """
    check_compression(
        'wavelet_compressed_conv2d',
        keep_ratio=keep_ratio,
        levels=levels,
        wavelet=wavelet,
        selection=selection,
    )
    if x.dim() != 4 or weight.shape[1:] != (x.shape[1], 1, 1):
        raise ValueError(
            'wavelet_compressed_conv2d: x must have shape (B, C, H, W) and weight (O, C, 1, 1), '
            f'got {tuple(x.shape)} and {tuple(weight.shape)}. Use torch.nn.functional.conv2d for '
            'larger kernels or groups.'
        )
    rows, slot = pack(x, keep_ratio=keep_ratio, levels=levels, wavelet=wavelet, selection=selection)
    rows = multiply_rows(rows, weight)
    return unpack(
        rows,
        slot,
        bias,
        size=x.shape[2:],
        levels=levels,
        wavelet=wavelet,
        channels_last=is_channels_last(x),
    )
