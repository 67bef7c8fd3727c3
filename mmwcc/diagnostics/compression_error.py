"""Error of feature maps over effective bits, for wavelet compression and uniform quantization."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mmwcc.model_tree import each_batch

from .feature_maps import (
    MapError,
    compress_map,
    eligible_layers,
    map_error,
    observe_inputs,
    quantize_map,
)

__all__ = ['QUANTIZED', 'WAVELET', 'CompressionErrors', 'Setting', 'measure_errors']

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
            'measure_errors: the model must have 1x1 convolutions with one group, got none in '
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
            f'measure_errors: maps must have at least {2**levels} pixels a side for {levels} '
            'levels, got none that large. Give larger images, or fewer levels.'
        )
    ran = [name for name in candidates if name in found]
    return CompressionErrors(
        {name: found[name] for name in ran},
        {name: sizes[name] for name in ran},
        sorted(small - found.keys()),
        images,
    )
