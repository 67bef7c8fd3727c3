"""A figure of the errors of compressed feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean, quantiles

from .compression_error import QUANTIZED, WAVELET, CompressionErrors, Setting
from .feature_maps import equal_cost_bits
from .figure_text import fit_titles

__all__ = ['plot_errors']


def plot_errors(errors: CompressionErrors, path: str | Path, title: str = '') -> None:
    """Plot the mean error over effective bits, and the error of every layer at one cost.

    Args:
        errors: What :func:`measure_errors` returns.
        path: PNG to write.
        title: Title of the figure. Defaults to ''.

    Reference:
        Finder et al., NeurIPS 2022, figure 1.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout='constrained')
    curves, layers = figure.subplots(1, 2, width_ratios=(2, 3))
    _draw_curves(curves, errors)
    _draw_layers(layers, errors)
    figure.suptitle(title, fontsize=11)
    fit_titles(figure)
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
        title=f'every layer at {pair[1].effective_bits:g} effective bits, '
        'width x height of its map',
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
