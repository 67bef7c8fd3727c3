"""Where a strip of patches lies in a channels_last map, and how its border is copied.

A strip is a row of patches at least 16 pixels wide. It is transformed one block of channels at a
time. A strip inside the map is transformed straight from and to the map. At the border it passes
through a copy in scratch memory, which stays in the cache.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .addresses import address, address_at
from .jit import jit
from .patch import Patch
from .rows import copy_row

__all__ = [
    'LINE',
    'Map',
    'Strip',
    'first_patch',
    'patch_of',
    'pixel_of',
    'read_border',
    'strip_of',
    'write_border',
]

LINE = 16  # width of a strip in pixels, at least
_jit = jit(error_model='numpy', fastmath={'contract'}, forceinline=True)


class Map(NamedTuple):
    """A map and how it is cut.

    Attributes:
        values: Its address.
        shape: Its shape (B, C, H, W).
        levels: Depth of the transform. Patches have ``2**levels`` pixels on each side.
        block: How many channels are transformed at a time.
    """

    values: np.uintp
    shape: tuple[int, int, int, int]
    levels: int
    block: int


class Strip(NamedTuple):
    """Where a strip lies.

    Attributes:
        image: Number of its image.
        top: Its first line of pixels.
        left: Its first column of pixels.
        rows: How many of its lines lie in the map.
        cols: How many of its columns lie in the map.
        patch: Number of its first patch within the image.
        patches: How many patches it has.
        inside: Whether all of it lies in the map.
    """

    image: int
    top: int
    left: int
    rows: int
    cols: int
    patch: int
    patches: int
    inside: bool


@_jit
def strip_of(number, shape, levels):
    """Return the strip of a number, counted over the whole batch."""
    _, _, height, width = shape
    side = 1 << levels
    length = max(side, LINE)
    rows, cols = (height + side - 1) // side, (width + side - 1) // side
    strips = (width + length - 1) // length
    image, place = number // (rows * strips), number % (rows * strips)
    row, col = place // strips, place % strips * (length // side)
    top, left = row * side, col * side
    return Strip(
        image,
        top,
        left,
        min(side, height - top),
        min(length, width - left),
        row * cols + col,
        min(length // side, cols - col),
        top + side <= height and left + length <= width,
    )


@_jit
def pixel_of(source, strip, i, j):
    """Return the index of a pixel of a strip in the memory of the map."""
    _, channels, height, width = source.shape
    return ((strip.image * height + strip.top + i) * width + strip.left + j) * channels


@_jit
def _copied_pixel(source, i, j):
    """Return the index of a pixel in the copy of a strip, where a pixel is a block of channels."""
    return (i * max(1 << source.levels, LINE) + j) * source.block


@_jit
def read_border(source, strip, first, pixels):
    """Copy a strip into ``pixels``, with zeros outside the map, for channels from ``first`` on."""
    count = min(source.block, source.shape[1] - first)
    pixels[:] = 0
    for i in range(strip.rows):
        for j in range(strip.cols):
            copy_row(
                address_at(source.values, pixel_of(source, strip, i, j) + first),
                address_at(address(pixels), _copied_pixel(source, i, j)),
                count,
            )


@_jit
def write_border(target, strip, first, pixels):
    """Undo :func:`read_border`: copy the part of ``pixels`` that lies in the map back to it."""
    count = min(target.block, target.shape[1] - first)
    for i in range(strip.rows):
        for j in range(strip.cols):
            copy_row(
                address_at(address(pixels), _copied_pixel(target, i, j)),
                address_at(target.values, pixel_of(target, strip, i, j) + first),
                count,
            )


@_jit
def first_patch(source, strip, first, pixels):
    """Return the first patch of a strip, in the map or at the border in its copy."""
    _, channels, _, width = source.shape
    side, count = 1 << source.levels, min(source.block, channels - first)
    if strip.inside:
        corner = address_at(source.values, pixel_of(source, strip, 0, 0) + first)
        return Patch(corner, channels, width * channels, side, count, side * channels)
    return Patch(address(pixels), source.block, _copied_pixel(source, 1, 0), side, count, 0)


@_jit
def patch_of(first, member, following):
    """Return a patch of a strip. The one to prefetch lies ``following`` patches further on."""
    corner = address_at(first.corner, member * first.side * first.right)
    return Patch(
        corner, first.right, first.down, first.side, first.channels, following * first.following
    )
