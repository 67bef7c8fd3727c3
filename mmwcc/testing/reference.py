"""Wavelet compressed convolution in float64, built on PyWavelets and NumPy alone.

It is the reference for mmwcc, and nothing here comes from mmwcc. Arrays are NumPy float64.
Gradients follow from the linear operators A (analysis) and S (synthesis) and their transposes. For
biorthogonal wavelets, A and S are not each other's transpose.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import numpy as np
from torch import Tensor

from .grid import Grid, Quantized
from .transform import Transform, mallat_index


def kept_count(positions: int, keep_ratio: float) -> int:
    """Return k = max(1, ceil(keep_ratio * positions)) in exact arithmetic."""
    return max(1, ceil(Fraction(keep_ratio).limit_denominator(10**6) * positions))


def select(norms: np.ndarray, k: int) -> np.ndarray:
    """Mark the k largest norms of each row.

    NaN come before all others, and the first ones among equals.
    """
    keep = np.zeros(norms.shape, dtype=bool)
    for image, row in zip(keep, norms, strict=True):
        best_first = np.lexsort((-row, ~np.isnan(row)))
        image[best_first[:k]] = True
    return keep


def check_selection(keep: np.ndarray, norms: np.ndarray, k: int, tolerance: float) -> None:
    """Assert that ``keep`` marks the k largest norms of each image, up to rounding.

    The code under test may have rounded its norms differently. So a position may differ from the
    exact choice, but only if its norm is within ``tolerance`` of the k-th largest, relative to that
    one, or within rounding noise of the largest.
    """
    assert (keep.sum(1) == k).all(), f'kept {keep.sum(1)} positions, not {k}'
    threshold = np.sort(norms, axis=1)[:, -k][:, None]
    noise = tolerance * threshold + tolerance**2 * norms.max(axis=1, keepdims=True, initial=0)
    wrong = (keep != select(norms, k)) & (np.abs(norms - threshold) > noise)
    assert not wrong.any(), f'wrong positions {np.argwhere(wrong).tolist()}'


def to_numpy(tensor: Tensor) -> np.ndarray:
    """Return a tensor in NumPy, as float64 or as booleans."""
    array = tensor.detach().cpu()
    return array.double().numpy() if array.is_floating_point() else array.numpy()


@dataclass(frozen=True)
class Reference:
    """The output of a wavelet compressed convolution, and what its gradients need."""

    transform: Transform
    shape: tuple[int, ...]
    stride: int
    y: np.ndarray
    keep: np.ndarray
    kept: np.ndarray
    kept_quantized: np.ndarray
    weight: np.ndarray
    act: Quantized | None
    wgt: Quantized | None

    def gradients(self, grad: np.ndarray) -> dict[str, np.ndarray]:
        """Return the gradients of x, weight and bias, and of the clips.

        Args:
            grad: Gradient of y.
        """
        hat = self.transform.synthesis_transposed(grad) * self.keep[:, None]
        grad_weight = np.einsum('bon,bcn->oc', hat, self.kept_quantized)
        grad_kept = np.einsum('oc,bon->bcn', self.weight, hat)
        gradients = {'bias': grad.sum((0, 2, 3))}
        if self.wgt is not None:
            grad_weight, gradients['weight_clip'] = self.wgt.gradients(grad_weight)
        if self.act is not None:
            grad_kept, gradients['act_clip'] = self.act.gradients(grad_kept)
        gradients['weight'] = grad_weight[:, :, None, None]
        gradients['x'] = np.zeros(self.shape)
        gradients['x'][:, :, :: self.stride, :: self.stride] = self.transform.analysis_transposed(
            grad_kept * self.keep[:, None]
        )
        return gradients


@dataclass(frozen=True)
class Compression:
    """How a wavelet compressed convolution compresses; attributes as in the layer."""

    keep_ratio: float = 1.0
    levels: int = 3
    wavelet: str = 'haar'
    selection: str = 'energy'
    stride: int = 1


@dataclass(frozen=True)
class Measured:
    """What the code under test chose and rounded; it is checked and then taken over.

    Attributes:
        keep: Positions that it kept, bool (B, N). It may rank norms that are nearly equal
            differently, see :func:`check_selection`.
        rows: Its quantized kept coefficients, shape (B, k, C); see :meth:`Grid.quantize`.
        weight: Its quantized weight.
        tolerance: Relative error of its norms and coefficients.
    """

    keep: Tensor | None = None
    rows: Tensor | None = None
    weight: Tensor | None = None
    tolerance: float = 1e-5


_NO_COMPRESSION, _NOTHING_MEASURED = Compression(), Measured()


def reference_wcc(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    compression: Compression = _NO_COMPRESSION,
    *,
    act: Grid | None = None,
    wgt: Grid | None = None,
    measured: Measured = _NOTHING_MEASURED,
) -> Reference:
    """Compute ``y = S T^T K T A x + bias`` in float64, with both quantizers if they are given.

    Args:
        x: Feature map, shape (B, C, H, W).
        weight: Kernel, shape (O, C, 1, 1).
        bias: Shape (O,) or None.
        compression: The settings of the layer.
        act: Quantizer of the kept coefficients.
        wgt: Quantizer of the weight.
        measured: What the code under test chose and rounded.
    """
    maps, kernel = to_numpy(x), to_numpy(weight)[:, :, 0, 0]
    sampled = maps[:, :, :: compression.stride, :: compression.stride]
    height, width = sampled.shape[2:]
    transform = Transform(height, width, compression.levels, compression.wavelet)
    coefficients = transform.analysis(sampled)
    keep = _kept_positions(transform, coefficients, compression, measured)
    kept = kept_quantized = coefficients * keep[:, None]
    rows = quantized_kernel = None
    if act is not None:
        rows = act.quantize(kept, _spread_rows(measured.rows, keep), measured.tolerance)
        kept_quantized = rows.values
    if wgt is not None:
        theirs = None if measured.weight is None else to_numpy(measured.weight)[:, :, 0, 0]
        quantized_kernel = wgt.quantize(kernel, theirs, measured.tolerance)
        kernel = quantized_kernel.values
    y = transform.synthesis(np.einsum('oc,bcn->bon', kernel, kept_quantized))
    if bias is not None:
        y = y + to_numpy(bias)[:, None, None]
    return Reference(
        transform,
        maps.shape,
        compression.stride,
        y,
        keep,
        kept,
        kept_quantized,
        kernel,
        rows,
        quantized_kernel,
    )


def _kept_positions(
    transform: Transform, coefficients: np.ndarray, compression: Compression, measured: Measured
) -> np.ndarray:
    """Return which positions are kept, bool (B, N), after checking those of the code under test."""
    k = kept_count(transform.positions, compression.keep_ratio)
    theirs = None if measured.keep is None else to_numpy(measured.keep)
    if compression.selection == 'coarse':
        coarsest = mallat_index(*transform.size, compression.levels) < k
        exact = np.broadcast_to(coarsest, (len(coefficients), transform.positions))
        assert theirs is None or np.array_equal(theirs, exact), 'not the coarsest positions'
        return exact
    norms = (coefficients**2).sum(1)
    keep = select(norms, k) if theirs is None else theirs
    check_selection(keep, norms, k, measured.tolerance)
    return keep


def _spread_rows(rows: Tensor | None, keep: np.ndarray) -> np.ndarray | None:
    """Put rows (B, k, C) in their positions, with zeros elsewhere, shape (B, C, N)."""
    if rows is None:
        return None
    values = to_numpy(rows)
    spread = np.zeros((*keep.shape, values.shape[-1]))
    spread[keep] = values.reshape(-1, values.shape[-1])
    return spread.transpose(0, 2, 1)


def relative_error(actual: Tensor | np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference, relative to the largest expected magnitude."""
    actual = to_numpy(actual) if isinstance(actual, Tensor) else actual
    assert actual.shape == expected.shape, f'shape {actual.shape}, expected {expected.shape}'
    if not expected.size:
        return 0.0
    return float(np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-30))
