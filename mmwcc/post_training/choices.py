"""The ways to compress a layer that are tried, and the divergence that each of them causes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

__all__ = ['Choice', 'Grid', 'LayerSensitivity']


@dataclass(frozen=True)
class Choice:
    """One way to compress one layer.

    Attributes:
        weight_bits: Bits of the weights, 32 if not quantized.
        act_bits: Bits of the input or of its kept coefficients, 32 if not quantized.
        keep_ratio: Fraction of wavelet positions kept, or None for quantization without wavelets.
    """

    weight_bits: int = 32
    act_bits: float = 32
    keep_ratio: float | None = None


@dataclass(frozen=True)
class Grid:
    """The values to try.

    Attributes:
        weight_bits: Bits of weights. Defaults to (8, 6, 5, 4).
        act_bits: Bits of activations and of coefficients. Defaults to (8, 6, 5, 4, 3).
        keep_ratios: Fractions of wavelet positions. Defaults to (0.75, 0.5, 0.375, 0.25, 0.1875,
            0.125, 0.0625).
        mean_bits: Mean bits of positions, for layers whose positions have bits by their energy.
            Defaults to (8, 6, 5, 4, 3, 2.5, 2, 1.5, 1, 0.75, 0.5).
    """

    weight_bits: Sequence[int] = (8, 6, 5, 4)
    act_bits: Sequence[int] = (8, 6, 5, 4, 3)
    keep_ratios: Sequence[float] = (0.75, 0.5, 0.375, 0.25, 0.1875, 0.125, 0.0625)
    mean_bits: Sequence[float] = (8, 6, 5, 4, 3, 2.5, 2, 1.5, 1, 0.75, 0.5)


@dataclass(frozen=True)
class LayerSensitivity:
    """The divergence caused by each part of a layer's compression while everything else is dense.

    Attributes:
        name: Qualified name of the layer.
        weight_bits: Divergence for each number of bits of the weights.
        act_bits: Divergence for each number of bits of the input, without wavelets.
        coefficient_bits: Divergence for each number of bits of all wavelet coefficients. Empty for
            layers without wavelets.
        keep_ratio: Divergence for each fraction of coefficients kept, unquantized. Empty for layers
            without wavelets.
    """

    name: str
    weight_bits: dict[float, float]
    act_bits: dict[float, float]
    coefficient_bits: dict[float, float] = field(default_factory=dict)
    keep_ratio: dict[float, float] = field(default_factory=dict)

    def choices(self) -> Iterator[Choice]:
        """Iterate over all combinations of the measured values."""
        for weight, act in product(map(int, self.weight_bits), self.act_bits):
            yield Choice(weight, act)
        for weight, act, keep in product(
            map(int, self.weight_bits), self.coefficient_bits, self.keep_ratio
        ):
            yield Choice(weight, act, keep)

    def divergence(self, choice: Choice) -> float:
        """Predict the divergence of a combination as the sum of its parts.

        Example:
            >>> layer = LayerSensitivity('conv', {8: 0.1}, {8: 0.2}, {8: 0.25}, {0.5: 1.0})
            >>> layer.divergence(Choice(8, 8, 0.5))
            1.35
        """
        weight = self.weight_bits[choice.weight_bits]
        if choice.keep_ratio is None:
            return weight + self.act_bits[choice.act_bits]
        return weight + self.coefficient_bits[choice.act_bits] + self.keep_ratio[choice.keep_ratio]
