"""Error of feature maps over effective bits, for wavelet compression and uniform quantization."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from statistics import mean, quantiles

import torch
from torch import Tensor, nn

from mmwcc.model_tree import each_batch

from .feature_maps import (
    MapError,
    compress_map,
    eligible_layers,
    equal_cost_bits,
    map_error,
    observe_inputs,
    quantize_map,
)

__all__ = [
    'QUANTIZED',
    'WAVELET',
    'CompressionErrors',
    'Setting',
    'measure_errors',
    'plot_errors',
    'write_errors',
]

QUANTIZED, WAVELET = 'quantization', 'wcc'


@dataclass(frozen=True)
class Setting:
    """One way to compress a feature map.

    Attributes:
        method: :data:`QUANTIZED` or :data:`WAVELET`.
        bits: Bits of the values, or of the kept coefficients.
        keep_ratio: Fraction of the coefficients kept; 1 for quantization.
    """

    method: str
    bits: int
    keep_ratio: float = 1.0

    @property
    def effective_bits(self) -> float:
        """Bits per value of the feature map."""
        return self.bits * self.keep_ratio


@dataclass
class CompressionErrors:
    """Errors of the feature maps that each layer reads, for each setting.

    Attributes:
        layers: The error of each setting, for each layer in the order of the network.
        sizes: Height and width of the first feature map of each layer.
        left_out: Layers whose feature maps are too small for the transform.
        images: Number of batches that went through the network.
    """

    layers: dict[str, dict[Setting, MapError]] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    images: int = 0

    @property
    def settings(self) -> list[Setting]:
        """All settings, cheapest first within each method."""
        settings = next(iter(self.layers.values()), {})
        return sorted(settings, key=lambda setting: (setting.method, setting.effective_bits))

    def relative(self, setting: Setting, size: tuple[int, int] | None = None) -> list[float]:
        """Return the error of each layer as a fraction of the energy of its feature maps.

        Layers whose feature maps are all zero are left out.

        Args:
            setting: How the feature maps were compressed.
            size: Height and width. If given, only layers with feature maps of this size count.
                Defaults to None.
        """
        values = [
            errors[setting].relative
            for name, errors in self.layers.items()
            if errors[setting].energy and size in (None, self.sizes[name])
        ]
        return values or [float('nan')]

    def mse(self, setting: Setting) -> list[float]:
        """Return the mean squared error of each layer."""
        return [errors[setting].mse for errors in self.layers.values()]


@torch.no_grad()
def measure_errors(
    model: nn.Module,
    batches: Iterable,
    bits: Sequence[int],
    keep_ratios: Sequence[float],
    *,
    coefficient_bits: int = 8,
    levels: int = 3,
    wavelet: str = 'haar',
) -> CompressionErrors:
    """Measure the error of compressing the feature maps that a network's 1x1 convolutions read.

    What the network computes does not change. Each feature map is compressed with the clip that
    gives the least squared error for this feature map.

    Args:
        model: A model of OpenMMLab, with ``test_step``.
        batches: What ``test_step`` takes, one image each.
        bits: Bits of uniform quantization, in 1 ... 16.
        keep_ratios: Fractions of the wavelet coefficients to keep, in (0, 1].
        coefficient_bits: Bits of the kept coefficients, in 2 ... 16 or 32. Defaults to 8.
        levels: Depth of the transform. Defaults to 3.
        wavelet: Wavelet of the transform. Defaults to 'haar'.

    Returns:
        The errors, summed over images.

    Raises:
        TypeError: If batches is a single batch.
        ValueError: If the model has no 1x1 convolution with one group, there is no batch, or the
            feature maps of all of them are too small.
    """
    candidates = eligible_layers(model)
    if not candidates:
        raise ValueError(
            f'measure_errors: the model must have 1x1 convolutions with one group, got none in '
            f'{type(model).__name__}. Only their inputs can be wavelet compressed.'
        )
    settings = [Setting(QUANTIZED, width) for width in bits]
    settings += [Setting(WAVELET, coefficient_bits, keep_ratio) for keep_ratio in keep_ratios]
    found: dict[str, dict[Setting, MapError]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    small: set[str] = set()

    def add(name: str, x: Tensor) -> None:
        if min(x.shape[2:]) < 2**levels:
            small.add(name)
            return
        sizes.setdefault(name, (x.shape[2], x.shape[3]))
        sums = found.setdefault(name, dict.fromkeys(settings, MapError()))
        for setting in settings:
            changed = (
                quantize_map(x, setting.bits)
                if setting.method == QUANTIZED
                else compress_map(
                    x, setting.keep_ratio, setting.bits, levels=levels, wavelet=wavelet
                ).values
            )
            sums[setting] += map_error(x, changed)

    images = 0
    with observe_inputs(candidates, add):
        for batch in each_batch('measure_errors', batches):
            model.test_step(batch)  # type: ignore[operator]  # mmengine's models have it, nn.Module has not
            images += 1
    if not found:
        raise ValueError(
            f'measure_errors: maps must have at least {2**levels} pixels a side for {levels} levels, got '
            'none that large. Give larger images, or fewer levels.'
        )
    ran = [name for name in candidates if name in found]
    return CompressionErrors(
        {name: found[name] for name in ran},
        {name: sizes[name] for name in ran},
        sorted(small - found.keys()),
        images,
    )


def write_errors(errors: CompressionErrors, path: str | Path) -> None:
    """Write a CSV file with one line per layer and setting, and the means over layers as ``mean``.

    Args:
        errors: What :func:`measure_errors` returns.
        path: File to write.
    """
    with Path(path).open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(
            (
                'layer',
                'height',
                'width',
                'method',
                'bits',
                'keep_ratio',
                'effective_bits',
                'mse',
                'relative_mse',
            )
        )
        for name, sums in errors.layers.items():
            for setting in errors.settings:
                _write(
                    writer,
                    (name, *errors.sizes[name]),
                    setting,
                    sums[setting].mse,
                    sums[setting].relative,
                )
        for setting in errors.settings:
            _write(
                writer,
                ('mean', '', ''),
                setting,
                mean(errors.mse(setting)),
                mean(errors.relative(setting)),
            )


def _write(writer, layer: tuple, setting: Setting, mse: float, relative: float) -> None:
    writer.writerow(
        (
            *layer,
            setting.method,
            setting.bits,
            f'{setting.keep_ratio:g}',
            f'{setting.effective_bits:g}',
            f'{mse:.6g}',
            f'{relative:.6g}',
        )
    )


def plot_errors(errors: CompressionErrors, path: str | Path, title: str = '') -> None:
    """Plot the mean error over effective bits, and the error of every layer at one cost.

    Args:
        errors: What :func:`measure_errors` returns.
        path: PNG to write.
        title: Title of the figure. Defaults to ''.

    Reference:
        Finder et al., NeurIPS 2022, figure 1.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout='constrained')
    FigureCanvasAgg(figure)
    curves, layers = figure.subplots(1, 2, width_ratios=(2, 3))
    _draw_curves(curves, errors)
    _draw_layers(layers, errors)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=100)


_LOOK = {
    QUANTIZED: ('uniform quantization', 'tab:orange', 's'),
    WAVELET: ('wavelet compression', 'tab:blue', 'o'),
}


def _draw_curves(axes, errors: CompressionErrors) -> None:
    for method, (label, color, marker) in _LOOK.items():
        settings = [setting for setting in errors.settings if setting.method == method]
        if not settings:
            continue
        costs = [setting.effective_bits for setting in settings]
        series = [errors.relative(setting) for setting in settings]
        axes.plot(
            costs, [mean(values) for values in series], color=color, marker=marker, label=label
        )
        if len(errors.layers) > 3:
            low, _, high = zip(
                *(quantiles(values, method='inclusive') for values in series), strict=True
            )
            axes.fill_between(costs, low, high, color=color, alpha=0.15, linewidth=0)
    axes.set(
        yscale='log',
        xlabel='effective bits: bits x fraction kept',
        ylabel='MSE / mean square',
        title=f'mean over {len(errors.layers)} layers; band: middle half',
    )
    axes.title.set_fontsize(10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)


def _draw_layers(axes, errors: CompressionErrors) -> None:
    pair = _comparable(errors.settings)
    if pair is None:
        axes.axis('off')
        return
    names = sorted(errors.layers, key=lambda name: -errors.sizes[name][0] * errors.sizes[name][1])
    for setting in pair:
        label, color, marker = _LOOK[setting.method]
        axes.plot(
            [errors.layers[name][setting].relative for name in names],
            marker,
            color=color,
            markersize=4,
            label=f'{label}, {setting.bits} bits'
            + (f', {100 * setting.keep_ratio:g} % kept' if setting.method == WAVELET else ''),
        )
    _shade_sizes(axes, [errors.sizes[name] for name in names])
    axes.set(
        yscale='log',
        xlim=(-0.5, len(names) - 0.5),
        xlabel='layer, those with the largest maps first',
        title=f'every layer at {pair[1].effective_bits:g} effective bits, width x height of its map',
    )
    axes.title.set_fontsize(10)
    axes.grid(alpha=0.3, axis='y')
    axes.legend(fontsize=9)


def _shade_sizes(axes, sizes: Sequence[tuple[int, int]]) -> None:
    """Shade every other group of one size and write the size at the top, vertically if needed."""
    start = 0
    for number, (size, group) in enumerate(groupby(sizes)):
        stop = start + len(list(group))
        if number % 2:
            axes.axvspan(start - 0.5, stop - 0.5, color='black', alpha=0.05, linewidth=0)
        axes.text(
            (start + stop - 1) / 2,
            0.98,
            f'{size[1]} x {size[0]}',
            transform=axes.get_xaxis_transform(),
            ha='center',
            va='top',
            fontsize=8,
            color='dimgray',
            rotation=0 if stop - start > len(sizes) / 9 else 90,
        )
        start = stop


def _comparable(settings: Sequence[Setting]) -> tuple[Setting, Setting] | None:
    """Return the pair of settings of equal cost that is nearest to 2 bits, if there is any."""
    pairs = [
        (quantized, wavelet)
        for quantized in settings
        if quantized.method == QUANTIZED
        for wavelet in settings
        if wavelet.method == WAVELET
        and equal_cost_bits(wavelet.keep_ratio, wavelet.bits) == quantized.bits
    ]
    return min(pairs, key=lambda pair: abs(pair[1].effective_bits - 2), default=None)
