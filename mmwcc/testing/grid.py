"""Uniform quantizers in float64, in NumPy alone, as references for those of mmwcc.

Nothing here comes from mmwcc.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Grid:
    """A uniform quantizer, equations (1) and (2), and its straight-through gradients.

    Attributes:
        clip: The learned clip, or several that broadcast against the values.
        bits: Width.
        signed: Whether negative values have levels.
        symmetric: Whether a signed grid leaves out its lowest level (that of LSQ does not).
        clip_gradient: Whether values outside the clips have no gradient (weights do have one).
        clip_scale: Factor on the gradient of the clip.
        normalize: '', 'standard' or 'rescale' (weights).
    """

    clip: float | np.ndarray
    bits: int
    signed: bool = True
    symmetric: bool = True
    clip_gradient: bool = True
    clip_scale: float = 1.0
    normalize: str = ''

    @property
    def bounds(self) -> tuple[int, int]:
        """Lowest and highest level."""
        if not self.signed:
            return 0, 2**self.bits - 1
        high = 2 ** (self.bits - 1) - 1
        return (-high if self.symmetric else -high - 1), high

    def quantize(
        self, values: np.ndarray, measured: np.ndarray | None = None, tolerance: float = 0.0
    ) -> Quantized:
        """Quantize ``values``.

        Args:
            values: What to quantize.
            measured: The result of the code under test. That code may round a value halfway between
                two levels either way. Where ``measured`` is a nearest level up to ``tolerance``, it
                is taken over. Otherwise this fails.
            tolerance: Error of the values in the code under test, relative to the largest of them.
        """
        low, high = self.bounds
        factor = values.std(ddof=1) if self.normalize else 1.0
        normalized = (values - values.mean()) / factor if self.normalize else values
        scaled = normalized * (high / self.clip)
        output_step = self.clip / high * (factor if self.normalize == 'rescale' else 1.0)
        clipped = scaled.clip(low, high)
        level = np.rint(clipped)
        if measured is not None:
            level = np.rint(measured / output_step)
            largest = np.abs(clipped).max(initial=1.0)
            assert np.abs(measured / output_step - level).max(initial=0) <= tolerance * largest, (
                'not on the grid'
            )
            # Small coefficients can be differences of large ones, with an error relative to those.
            noise = tolerance * np.abs(scaled).max(initial=1.0)
            assert np.abs(level - clipped).max(initial=0) <= 0.5 + noise, 'not the nearest level'
        return Quantized(self, level * output_step, level, scaled, factor)


@dataclass(frozen=True)
class Quantized:
    """Values on a grid, and how gradients pass through them."""

    grid: Grid
    values: np.ndarray
    level: np.ndarray
    scaled: np.ndarray
    factor: float

    @property
    def inside(self) -> np.ndarray:
        low, high = self.grid.bounds
        return (self.scaled >= low) & (self.scaled <= high)

    @property
    def largest(self) -> float:
        """Largest magnitude in units of the clip, at least 1: errors are relative to it."""
        return np.abs(self.scaled).max(initial=self.grid.bounds[1]) / self.grid.bounds[1]

    def is_clear_of_clips(self, tolerance: float) -> bool:
        """Tell whether no value can cross a clip through an error of ``tolerance``.

        The error is relative to the largest value.
        """
        distance = min(
            np.abs(self.scaled - bound).min(initial=np.inf) for bound in self.grid.bounds
        )
        return distance > tolerance * self.largest * self.grid.bounds[1]

    def gradients(self, grad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the gradients of the values, and of the clip or each of the clips."""
        grid, high = self.grid, self.grid.bounds[1]
        if grid.normalize == 'rescale':
            grad = grad * self.factor
        terms = (
            grad
            * np.where(self.inside, self.level - self.scaled, self.level)
            / high
            * grid.clip_scale
        )
        grad_values = np.where(self.inside, grad, 0.0) if grid.clip_gradient else grad
        clips = np.shape(grid.clip)
        shared = tuple(axis for axis in range(terms.ndim) if clips[axis : axis + 1] in ((), (1,)))
        return grad_values / (self.factor if grid.normalize else 1.0), terms.sum(shared)
