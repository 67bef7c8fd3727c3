"""Figures for the visualizer: the input image, and what compression does to feature maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from mmwcc.diagnostics import (
    CompressedMap,
    MapError,
    compress_by_energy,
    compress_map,
    fit_titles,
    map_error,
    quantize_map,
)
from mmwcc.kernels import WIDTHS
from mmwcc.quantizers import EnergyActQuantizer

__all__ = ['FeatureMap', 'draw_feature_maps', 'to_pixels']

_NOTE = """Each row is one channel of the map that goes into a layer, three times in the same
colours: as it is, rounded to a uniform grid, and with only the largest wavelet coefficients kept.
Both ways cost the same: effective bits = bits x fraction kept, rounded up for the grid.
MSE is over all channels, in brackets as a part of the mean square.

Right: the positions kept, the same for all channels; if they have bits by their
energy, in the colours of their bits. Coarse averages (cA) stand
in the corner, cV beside them, cH below, cD across; the finest level is outermost."""


@dataclass(frozen=True)
class FeatureMap:
    """The feature map that a layer receives, and how to compress it.

    Attributes:
        name: Qualified name of the layer.
        values: The map of one image, shape (C, H, W).
        keep_ratio: See :func:`mmwcc.diagnostics.feature_maps.compress_map`.
        bits: See the same function.
        levels: See the same function.
        wavelet: See the same function.
        selection: See the same function.
        quantizer: The quantizer of the layer if its positions have bits by their energy. It takes
            the place of keep_ratio and bits. Defaults to None.
    """

    name: str
    values: Tensor
    keep_ratio: float
    bits: int = 8
    levels: int = 3
    wavelet: str = 'haar'
    selection: str = 'energy'
    quantizer: EnergyActQuantizer | None = None

    @property
    def effective_bits(self) -> float:
        """Mean number of bits of all positions, those that are dropped included."""
        return self.bits * self.keep_ratio if self.quantizer is None else self.quantizer.bits

    def compressed(self) -> CompressedMap:
        """Return the map as the layer multiplies it."""
        dense = self.values.float().unsqueeze(0)
        transform: dict[str, Any] = dict(
            levels=self.levels, wavelet=self.wavelet, selection=self.selection
        )
        if self.quantizer is not None:
            return compress_by_energy(dense, self.quantizer, **transform)
        return compress_map(dense, self.keep_ratio, self.bits, **transform)

    def title(self) -> str:
        """Say how the map is compressed."""
        if self.quantizer is not None:
            return f'{self.wavelet}, bits by energy, {self.effective_bits:g} on the mean'
        return (
            f'{100 * self.keep_ratio:g} % of {self.wavelet}, {_width(self.bits)} = '
            f'{self.effective_bits:g} effective'
        )


@torch.no_grad()
def draw_feature_maps(image: Tensor, maps: Sequence[FeatureMap]) -> Figure:
    """Draw an image, and a row per feature map: dense, quantized at equal cost, wavelet compressed.

    Each row shows the channel with the largest variance, and next to it the wavelet positions that
    were kept.

    Args:
        image: RGB pixels from 0 to 255, shape (3, H, W). Any other number of channels is drawn in
            grey.
        maps: The feature maps to draw.

    Returns:
        The figure, see :func:`to_pixels`.

    Reference:
        Finder et al., NeurIPS 2022, figures 2 and 3.
    """
    height, width = image.shape[1:]
    row = min(max(3.1 * height / width, 1.2), 5.0) + 0.55
    figure = Figure(
        figsize=(13.2, row * (len(maps) + 1)), dpi=100, facecolor='white', layout='constrained'
    )
    grid = figure.add_gridspec(len(maps) + 1, 4)
    _draw_image(figure.add_subplot(grid[0, 0]), image)
    note = figure.add_subplot(grid[0, 1:])
    note.axis('off')
    note.text(0.02, 0.5, _NOTE, transform=note.transAxes, va='center', fontsize=11, linespacing=1.5)
    for line, feature_map in enumerate(maps, 1):
        _draw_row([figure.add_subplot(grid[line, column]) for column in range(4)], feature_map)
    fit_titles(figure)
    return figure


def to_pixels(figure: Figure) -> np.ndarray:
    """Render a figure, without a display, as RGB pixels (rows, columns, 3) of type uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _draw_image(axes: Axes, image: Tensor) -> None:
    pixels = image.float().round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
    axes.imshow(pixels if pixels.shape[2] == 3 else pixels.mean(2), cmap='gray', vmin=0, vmax=255)
    axes.set_title(f'input, {pixels.shape[1]} x {pixels.shape[0]}', fontsize=10)
    _clear(axes)


def _draw_row(panels: Sequence[Axes], feature_map: FeatureMap) -> None:
    dense = feature_map.values.float().unsqueeze(0)
    channels, height, width = dense.shape[1:]
    equal = math.ceil(feature_map.effective_bits - 1e-6)  # in favor of quantization
    quantized = quantize_map(dense, equal if equal <= 16 else 32)
    compressed = feature_map.compressed()
    channel = int(dense.flatten(2).var(2).argmax())
    # Limit the colour range, so that a few extreme values do not use it up.
    low, high = np.percentile(dense[0, channel].cpu().numpy(), (0.5, 99.5))
    for axes, values, title in (
        (panels[0], dense, f'dense, channel {channel} of {channels}\n{width} x {height}'),
        (
            panels[1],
            quantized,
            f'quantized, {_plural(equal)}\n{_error(map_error(dense, quantized))}',
        ),
        (
            panels[2],
            compressed.values,
            f'{feature_map.title()}\n{_error(map_error(dense, compressed.values))}',
        ),
    ):
        axes.imshow(
            values[0, channel].cpu().numpy(),
            cmap='viridis',
            vmin=low,
            vmax=high,
            interpolation='nearest',
        )
        axes.set_title(title, fontsize=10)
        _clear(axes)
    panels[0].set_ylabel(feature_map.name, fontsize=9)
    _draw_kept(panels[3], compressed, feature_map)


def _draw_kept(axes: Axes, compressed: CompressedMap, feature_map: FeatureMap) -> None:
    """Draw the kept positions, in the colours of their bits if these differ."""
    kept = compressed.kept[0].cpu().numpy()
    if compressed.widths is None:
        axes.imshow(~kept, cmap='gray', vmin=0, vmax=1, interpolation='nearest')
    else:
        colors = colormaps['viridis_r'].resampled(len(WIDTHS))
        colors.set_under('white')
        drawn = axes.imshow(
            compressed.widths[0].cpu().numpy(),
            cmap=colors,
            vmin=WIDTHS[0] - 0.5,
            vmax=WIDTHS[-1] + 0.5,
            interpolation='nearest',
        )
        bar = axes.figure.colorbar(drawn, ax=axes, ticks=WIDTHS, shrink=0.9)
        bar.set_label('bits', fontsize=9)
    height, width = kept.shape
    for level in range(1, feature_map.levels + 1):
        y, x = (side / 2**level - 0.5 for side in (height, width))
        axes.plot([x, x], [-0.5, 2 * y + 0.5], color='tab:orange', linewidth=0.9)
        axes.plot([-0.5, 2 * x + 0.5], [y, y], color='tab:orange', linewidth=0.9)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    title = f'{kept.sum():,} of {kept.size:,} positions kept'
    axes.set_title(f'{title}\n{_shares(compressed)}', fontsize=10)
    _clear(axes)


def _shares(compressed: CompressedMap) -> str:
    """Return a histogram of the bits of positions in words."""
    if compressed.widths is None:
        return 'the same in all channels'
    widths, counts = compressed.widths[0].unique(return_counts=True)
    shares = (100 * counts / counts.sum()).round().int().tolist()
    parts = [
        f'{width}: {share} %' for width, share in zip(widths.tolist(), shares, strict=True) if width
    ]
    return f'bits {", ".join(parts)}'


def _clear(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])


def _error(error: MapError) -> str:
    return f'MSE {error.mse:.3g} ({100 * error.relative:.2g} %)'


def _plural(bits: int) -> str:
    return '1 bit' if bits == 1 else _width(bits)


def _width(bits: int) -> str:
    return 'full precision' if bits == 32 else f'{bits} bits'
