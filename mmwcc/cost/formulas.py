"""Formulas for the number of operations in a convolution and in a wavelet transform."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from mmwcc.functional import filter_bank

__all__ = ['CONVENTIONS', 'check_convention', 'conv_macs', 'transform_bops', 'transform_operations']

CONVENTIONS = ('exact', 'paper')
"""'exact' counts what is computed, 'paper' what equations (13) to (15) of the paper give.

They differ in strides, padding and rounding.
"""


def check_convention(owner: str, convention: str) -> None:
    """Raise an error if the convention is unknown.

    Raises:
        ValueError: If convention is not one of :data:`CONVENTIONS`.
    """
    if convention not in CONVENTIONS:
        raise ValueError(
            f'{owner}: convention must be one of {", ".join(CONVENTIONS)}, got {convention!r}. Use '
            "'exact' for what is computed."
        )


def whole(value: float) -> int | float:
    """Return ``value`` as an int if it is an integer."""
    return int(value) if value == int(value) else value


def conv_macs(
    in_channels: int,
    out_channels: int,
    kernel_size: int | Sequence[int],
    size: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    groups: int = 1,
    convention: str = 'exact',
) -> int | float:
    """Count the multiply-accumulate operations of a convolution for one image.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Size of the kernel, one number for all dimensions or one for each.
        size: For 'exact' the size of the output; for 'paper' the size of the input.
        stride: 'paper' divides the size of the input by it, without rounding. It has no effect on
            'exact'. Defaults to 1.
        groups: Number of groups. Defaults to 1.
        convention: 'exact' or 'paper'. Defaults to 'exact'.

    Raises:
        ValueError: If convention is unknown.

    Example:
        >>> conv_macs(96, 96, 3, (256, 512), groups=96)
        113246208
        >>> conv_macs(96, 96, 3, (511, 1023), stride=2, groups=96, convention='paper')
        112914648

    Reference:
        Finder et al., NeurIPS 2022, equation (13).
    """
    check_convention('conv_macs', convention)
    macs = in_channels * out_channels // groups * _volume(kernel_size, size) * prod(size)
    return macs if convention == 'exact' else whole(macs / _volume(stride, size))


def _volume(extent: int | Sequence[int], size: Sequence[int]) -> int:
    return extent ** len(size) if isinstance(extent, int) else prod(extent)


def transform_operations(
    channels: int,
    positions: float,
    *,
    levels: int = 3,
    wavelet: str = 'haar',
    weight_bits: int = 32,
) -> int | float:
    """Count the additions of single values in a wavelet analysis or synthesis.

    Args:
        channels: Channels of the feature map: input channels for the analysis, output channels for
            the synthesis.
        positions: Pixels of the feature map, for all images together.
        levels: Depth of the transform. Defaults to 3.
        wavelet: 'haar', or a wavelet of PyWavelets. Haar has no multiplications. A wavelet with 2k
            taps takes ``k**2 * weight_bits`` times the additions of Haar. Defaults to 'haar'.
        weight_bits: Bits of the taps of other wavelets. Defaults to 32.

    Example:
        >>> transform_operations(2, 64, levels=3)
        672

    Reference:
        Finder et al., NeurIPS 2022, equation (15) and Appendix F.
    """
    haar = 4 * channels * positions * (4**levels - 1) / (3 * 4 ** (levels - 1))
    if wavelet != 'haar':
        haar *= (len(filter_bank(wavelet).dec_lo) / 2) ** 2 * weight_bits
    return whole(haar)


def transform_bops(
    channels: int,
    size: Sequence[int],
    act_bits: int,
    *,
    levels: int = 3,
    wavelet: str = 'haar',
    weight_bits: int = 32,
) -> int | float:
    """Count the bit operations of a wavelet analysis or synthesis for one image.

    Args:
        channels: As in :func:`transform_operations`, like levels, wavelet and weight_bits.
        size: Height and width of the feature map. The paper does not round them up to multiples of
            ``2**levels``.
        act_bits: Bits of the values.

    Example:
        >>> transform_bops(2, (8, 8), 8)
        5376

    Reference:
        Finder et al., NeurIPS 2022, equation (15) and Appendix F.
    """
    return act_bits * transform_operations(
        channels, prod(size), levels=levels, wavelet=wavelet, weight_bits=weight_bits
    )
