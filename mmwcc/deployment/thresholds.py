"""Replace TopK by static energy thresholds for wavelet positions, found on calibration images."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .layers import ExportableWaveletConv2d

__all__ = ['calibrate_thresholds', 'kept_ratios']


def _selecting(network: nn.Module) -> dict[str, ExportableWaveletConv2d]:
    """Return the layers that choose positions by energy, by name."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, ExportableWaveletConv2d)
        and module.selection == 'energy'
        and module.keep_ratio < 1
    }


@torch.no_grad()
def _energies(network: nn.Module, images: Iterable[Tensor], record) -> None:
    """Call ``record(name, layer, energies)`` whenever a layer that selects by energy runs."""
    handles = [
        layer.register_forward_pre_hook(
            lambda layer, inputs, name=name: record(
                name, layer, layer.energies(layer.coefficients(inputs[0]))
            )
        )
        for name, layer in _selecting(network).items()
    ]
    try:
        for x in images:
            network(x)
    finally:
        for handle in handles:
            handle.remove()


def calibrate_thresholds(network: nn.Module, images: Iterable[Tensor]) -> dict[str, float]:
    """Give every layer that keeps the k largest positions a threshold, in place.

    The threshold of a layer is the energy that a fraction ``keep_ratio`` of all positions in all
    images reach. A single image may keep more or less than that: the more detail it contains, the
    more positions it keeps. During calibration, the layers still keep the k largest positions.

    Args:
        network: What :func:`mmwcc.deployment.exportable` returns.
        images: Inputs of the network, of any sizes.

    Returns:
        The thresholds by layer name.

    Raises:
        ValueError: If images is empty while a layer needs a threshold.
    """
    layers = _selecting(network)
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}
    _energies(network, images, lambda name, layer, energies: seen[name].append(energies.flatten()))
    if not all(seen.values()):
        raise ValueError(
            'calibrate_thresholds: images must hold at least one image, got none. Use '
            "selection='topk', which needs none."
        )
    thresholds = {}
    for name, layer in layers.items():
        energies = torch.cat(seen[name])
        k = math.ceil(layer.keep_ratio * len(energies))
        # Positions without energy contribute nothing, whether kept or not.
        least = energies.topk(k).values[-1].clamp_min(torch.finfo(torch.float32).tiny)
        layer.threshold = thresholds[name] = least.item()
    return thresholds


def kept_ratios(network: nn.Module, images: Iterable[Tensor]) -> dict[str, float]:
    """Measure the fraction of positions that the thresholds keep.

    Args:
        network: A network with thresholds.
        images: Inputs of the network.

    Returns:
        The fractions by layer name, over all images together.

    Raises:
        ValueError: If a layer that selects by energy has no threshold.
    """
    counts = {name: [0, 0] for name in _selecting(network)}

    def record(name: str, layer: ExportableWaveletConv2d, energies: Tensor) -> None:
        if layer.threshold is None:
            raise ValueError(
                'kept_ratios: every layer that selects by energy must have a threshold, got '
                f'{name} without. Call calibrate_thresholds first.'
            )
        counts[name][0] += int((energies >= layer.threshold).sum())
        counts[name][1] += energies.numel()

    _energies(network, images, record)
    return {name: kept / max(positions, 1) for name, (kept, positions) in counts.items()}
