"""Plot how a budget is allocated to the layers."""

from __future__ import annotations

from pathlib import Path

from mmwcc.diagnostics import fit_titles
from mmwcc.post_training import Allocation

__all__ = ['plot_allocation']


def plot_allocation(allocation: Allocation, path: str | Path, title: str = '') -> None:
    """Draw keep_ratio, bits, bit operations and predicted divergence of every layer.

    Args:
        allocation: The allocation to draw.
        path: PNG to write.
        title: Description of the budget. Defaults to ''.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.0, 0.17 * len(allocation.layers)), 8), layout='constrained')
    keep, bits, cost, damage = figure.subplots(4, 1, sharex=True)
    places, candidates = range(len(allocation.layers)), list(allocation.layers.values())
    wavelets = [candidate.choice.keep_ratio is not None for candidate in candidates]
    colors = ['tab:blue' if wavelet else 'silver' for wavelet in wavelets]
    keep.bar(places, [candidate.choice.keep_ratio or 1 for candidate in candidates], color=colors)
    keep.set(ylabel='keep_ratio', title='blue: wavelet compressed, grey: quantized only')
    keep.title.set_fontsize(9)
    bits.plot(
        places,
        [candidate.choice.weight_bits for candidate in candidates],
        's',
        color='tab:orange',
        markersize=4,
        label='weights',
    )
    bits.plot(
        places,
        [candidate.choice.act_bits for candidate in candidates],
        '.',
        color='tab:green',
        label='activations',
    )
    bits.set(ylabel='bits')
    bits.legend(fontsize=8)
    cost.bar(places, [candidate.bops / 1e9 for candidate in candidates], color=colors)
    cost.set(ylabel='G BOPs', yscale='log')
    damage.bar(places, [candidate.divergence for candidate in candidates], color=colors)
    damage.set(ylabel='predicted divergence', xlim=(-0.6, len(candidates) - 0.4))
    damage.set_xticks(places, list(allocation.layers), rotation=90, fontsize=6)
    for axes in (keep, bits, cost, damage):
        axes.grid(alpha=0.3, axis='y')
    figure.suptitle(title, fontsize=11)
    fit_titles(figure)
    figure.savefig(path, dpi=100)
