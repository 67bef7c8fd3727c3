"""Wavelet transforms of feature maps, built from operators that every ONNX runtime has."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmwcc.functional import pack, wavedec2, waverec2
from mmwcc.kernels import fold, unfold

__all__ = ['HaarTransform', 'PeriodizedTransform', 'build_transform']

# 256 filters of 16x16; each further level costs four times as many multiplications per pixel
_DEEPEST = 4


class HaarTransform(nn.Module):
    """The Haar transform as one convolution, and its inverse as one matrix product.

    The filters of the convolution are all basis images of a patch. Times on two cores of an AMD
    EPYC (AVX-512) with ONNX Runtime 1.31, for 576x32x64: 0.7 ms as this convolution, 1.1 ms as sums
    and differences level by level, 1.5 ms as one convolution per level, 5.7 ms as a matrix product.
    Times of the inverse at 576x64x64, in a layer from 96 channels with half of the coefficients:
    4.1 ms as in this layer, 4.8 ms with DepthToSpace after the product, 5.3 ms with a transposed
    convolution.

    Rows are in band order: all patches of position 0, then all patches of position 1, and so on.
    Positions are those of :mod:`mmwcc.kernels.layout`.

    Args:
        levels: Depth of the transform.
    """

    filters: Tensor

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.side, self.area = 1 << levels, 1 << 2 * levels
        pixels = torch.eye(self.area).reshape(-1, 1, self.side, self.side)
        coefficients, _ = pack(pixels, keep_ratio=1.0, levels=levels)
        self.register_buffer(
            'filters', coefficients.reshape(self.area, -1).t().reshape(pixels.shape).contiguous()
        )

    def analysis(self, x: Tensor, batch: int, channels: int) -> Tensor:
        """Return the coefficients of a padded map, shape (B, N, C)."""
        cells = F.conv2d(
            x.reshape(batch * channels, 1, *x.shape[2:]), self.filters, stride=self.side
        )
        return cells.reshape(batch, channels, -1).transpose(1, 2)

    def synthesis(self, rows: Tensor, batch: int, channels: int, height: int, width: int) -> Tensor:
        """Return the padded map for rows of coefficients, shape (B, height, width, O)."""
        side, tall, wide = self.side, height // self.side, width // self.side
        pixels = self.filters.reshape(self.area, self.area).t() @ rows.reshape(batch, self.area, -1)
        pixels = pixels.reshape(batch, side, side, tall, wide, channels).permute(0, 3, 1, 4, 2, 5)
        return pixels.reshape(batch, height, width, channels)

    def by_position(self, values: Tensor) -> Tensor:
        """Reorder one value per row, shape (B, N), into the order of positions."""
        return values.reshape(values.shape[0], self.area, -1).transpose(1, 2).flatten(1)

    def by_row(self, values: Tensor) -> Tensor:
        """Undo :meth:`by_position`."""
        return values.reshape(values.shape[0], -1, self.area).transpose(1, 2).flatten(1)

    def row_of(self, position: Tensor, positions: int) -> Tensor:
        """Return the rows in which positions are stored."""
        return position % self.area * (positions // self.area) + position // self.area


class PeriodizedTransform(nn.Module):
    """The transform for any wavelet and depth, as sums of slices. Rows follow the positions.

    Args:
        wavelet: Name of the wavelet.
        levels: Depth of the transform.
    """

    def __init__(self, wavelet: str, levels: int) -> None:
        super().__init__()
        self.wavelet, self.levels, self.side = wavelet, levels, 1 << levels

    def analysis(self, x: Tensor, batch: int, channels: int) -> Tensor:
        """Return the coefficients of a padded map, shape (B, N, C)."""
        approximation, *details = wavedec2(x, self.wavelet, self.levels)
        return fold(
            approximation.permute(0, 2, 3, 1),
            [torch.stack([band.permute(0, 2, 3, 1) for band in bands], dim=3) for bands in details],
        )

    def synthesis(self, rows: Tensor, batch: int, channels: int, height: int, width: int) -> Tensor:
        """Return the padded map for rows of coefficients, shape (B, height, width, O)."""
        approximation, details = unfold(rows, height, width, self.levels)
        bands = [tuple(band.permute(0, 3, 1, 2) for band in level.unbind(3)) for level in details]
        return waverec2([approximation.permute(0, 3, 1, 2), *bands], self.wavelet).permute(
            0, 2, 3, 1
        )

    def by_position(self, values: Tensor) -> Tensor:
        """Reorder one value per row, shape (B, N), into the order of positions."""
        return values

    def by_row(self, values: Tensor) -> Tensor:
        """Undo :meth:`by_position`."""
        return values

    def row_of(self, position: Tensor, positions: int) -> Tensor:
        """Return the rows in which positions are stored."""
        return position


def build_transform(wavelet: str, levels: int) -> HaarTransform | PeriodizedTransform:
    """Return the faster transform for a wavelet and a depth."""
    return (
        HaarTransform(levels)
        if wavelet == 'haar' and levels <= _DEEPEST
        else PeriodizedTransform(wavelet, levels)
    )
