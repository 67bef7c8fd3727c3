"""Wavelet compressed convolution in float64, built on PyWavelets and NumPy alone.

It is the reference for mmwcc, and nothing here comes from mmwcc. Arrays are NumPy float64. A
feature map (..., H, W) is transformed over its last two axes into coefficients (..., N) in mmwcc's
position order. Gradients follow from the linear operators A (analysis) and S (synthesis) and their
transposes. For biorthogonal wavelets, A and S are not each other's transpose.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from math import ceil

import numpy as np
import pywt
from torch import Tensor

from .grid import Grid, Quantized

WAVELETS = ('haar', 'db2', 'db3', 'coif1', 'bior1.3', 'bior2.2', 'sym4')
LARGEST_MATRIX = 256  # number of positions up to which A and S are built as matrices


def padded(size: int, levels: int) -> int:
    """Round up to a multiple of 2**levels."""
    return ceil(size / 2**levels) * 2**levels


def kept_count(positions: int, keep_ratio: float) -> int:
    """Return k = max(1, ceil(keep_ratio * positions)) in exact arithmetic."""
    return max(1, ceil(Fraction(keep_ratio).limit_denominator(10**6) * positions))


@cache
def mallat_index(height: int, width: int, levels: int) -> np.ndarray:
    """Return, for each position, where its coefficient is in PyWavelets' flattened list of bands.

    The loops define the order: patches are row-major. A patch has cA first, then from the coarsest
    level to the finest its cells, row-major, each with cH, cV and cD.
    """
    rows, cols = height >> levels, width >> levels
    index = []
    for patch_row in range(rows):
        for patch_col in range(cols):
            index.append(patch_row * cols + patch_col)
            for side in (2**depth for depth in range(levels)):
                band_height, band_width = rows * side, cols * side
                band_size = band_height * band_width  # also the number of all coarser coefficients
                for row in range(patch_row * side, patch_row * side + side):
                    for col in range(patch_col * side, patch_col * side + side):
                        index += [
                            band_size * (1 + band) + row * band_width + col for band in range(3)
                        ]
    return np.array(index)


@cache
def dual_wavelet(wavelet: str) -> pywt.Wavelet:
    """Return the wavelet whose analysis is the transpose of the synthesis of ``wavelet``.

    Its synthesis is the transpose of the analysis of ``wavelet``, too.
    """
    dec_lo, dec_hi, rec_lo, rec_hi = pywt.Wavelet(wavelet).filter_bank
    return pywt.Wavelet(
        f'dual {wavelet}', filter_bank=[rec_lo[::-1], rec_hi[::-1], dec_lo[::-1], dec_hi[::-1]]
    )


def _analyse(maps: np.ndarray, wavelet: pywt.Wavelet, levels: int) -> np.ndarray:
    """Return the coefficients of maps in position order, by PyWavelets."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            'ignore', UserWarning
        )  # "all coefficients will experience boundary effects"
        bands = pywt.wavedec2(maps, wavelet, mode='periodization', level=levels, axes=(-2, -1))
    bands = [bands[0], *(band for details in bands[1:] for band in details)]
    flat = np.concatenate([band.reshape(*maps.shape[:-2], -1) for band in bands], axis=-1)
    return flat[..., mallat_index(*maps.shape[-2:], levels)]


def _synthesise(
    coefficients: np.ndarray, height: int, width: int, wavelet: pywt.Wavelet, levels: int
) -> np.ndarray:
    """Undo :func:`_analyse` with the synthesis of ``wavelet``."""
    flat = np.empty_like(coefficients)
    flat[..., mallat_index(height, width, levels)] = coefficients
    leading, bands, start = coefficients.shape[:-1], [], (height >> levels) * (width >> levels)
    approximation = flat[..., :start].reshape(*leading, height >> levels, width >> levels)
    for level in range(levels, 0, -1):
        shape = (*leading, 3, height >> level, width >> level)
        size = 3 * shape[-2] * shape[-1]
        bands.append(tuple(np.moveaxis(flat[..., start : start + size].reshape(shape), -3, 0)))
        start += size
    return pywt.waverec2([approximation, *bands], wavelet, mode='periodization', axes=(-2, -1))


@lru_cache(maxsize=256)
def matrices(height: int, width: int, levels: int, wavelet: str) -> tuple[np.ndarray, np.ndarray]:
    """Return A and S of a padded map as (N, N) matrices, from the transforms of unit vectors."""
    positions, basis = height * width, pywt.Wavelet(wavelet)
    unit = np.eye(positions)
    analysis = _analyse(unit.reshape(positions, height, width), basis, levels).T
    synthesis = _synthesise(unit, height, width, basis, levels).reshape(positions, positions).T
    return analysis, synthesis


@dataclass(frozen=True)
class Transform:
    """The wavelet transform of H x W maps: padding, A, S, their transposes, and cropping.

    Small maps go through the matrices A and S, larger ones through PyWavelets with the wavelet or
    its dual. A test makes sure that the two agree.
    """

    height: int
    width: int
    levels: int
    wavelet: str
    largest_matrix: int = LARGEST_MATRIX

    @property
    def size(self) -> tuple[int, int]:
        return padded(self.height, self.levels), padded(self.width, self.levels)

    @property
    def positions(self) -> int:
        return self.size[0] * self.size[1]

    def _pad(self, maps: np.ndarray) -> np.ndarray:
        bottom, right = self.size[0] - self.height, self.size[1] - self.width
        return np.pad(maps, [(0, 0)] * (maps.ndim - 2) + [(0, bottom), (0, right)])

    def _to_coefficients(self, maps: np.ndarray, matrix: int, wavelet: pywt.Wavelet) -> np.ndarray:
        maps = self._pad(maps)
        if self.positions > self.largest_matrix:
            return _analyse(maps, wavelet, self.levels)
        operator = matrices(*self.size, self.levels, self.wavelet)[matrix]
        return maps.reshape(*maps.shape[:-2], -1) @ (operator.T if matrix == 0 else operator)

    def _to_maps(self, coefficients: np.ndarray, matrix: int, wavelet: pywt.Wavelet) -> np.ndarray:
        if self.positions > self.largest_matrix:
            maps = _synthesise(coefficients, *self.size, wavelet, self.levels)
        else:
            operator = matrices(*self.size, self.levels, self.wavelet)[matrix]
            maps = coefficients @ (operator if matrix == 0 else operator.T)
            maps = maps.reshape(*coefficients.shape[:-1], *self.size)
        return maps[..., : self.height, : self.width]

    def analysis(self, maps: np.ndarray) -> np.ndarray:
        """Apply A: coefficients (..., N) of maps (..., H, W)."""
        return self._to_coefficients(maps, 0, pywt.Wavelet(self.wavelet))

    def synthesis_transposed(self, maps: np.ndarray) -> np.ndarray:
        """Apply S^T to maps (..., H, W)."""
        return self._to_coefficients(maps, 1, dual_wavelet(self.wavelet))

    def synthesis(self, coefficients: np.ndarray) -> np.ndarray:
        """Apply S: maps (..., H, W) of coefficients (..., N)."""
        return self._to_maps(coefficients, 1, pywt.Wavelet(self.wavelet))

    def analysis_transposed(self, coefficients: np.ndarray) -> np.ndarray:
        """Apply A^T to coefficients (..., N)."""
        return self._to_maps(coefficients, 0, dual_wavelet(self.wavelet))


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


def reference_wcc(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    keep_ratio: float = 1.0,
    levels: int = 3,
    wavelet: str = 'haar',
    selection: str = 'energy',
    stride: int = 1,
    *,
    keep: Tensor | None = None,
    tolerance: float = 1e-5,
    act: Grid | None = None,
    wgt: Grid | None = None,
    measured_rows: Tensor | None = None,
    measured_weight: Tensor | None = None,
) -> Reference:
    """Compute ``y = S T^T K T A x + bias`` in float64, with both quantizers if they are given.

    Args:
        x: Feature map, shape (B, C, H, W).
        weight: Kernel, shape (O, C, 1, 1).
        bias: Shape (O,) or None.
        keep_ratio: Fraction of positions to keep, as in the layer.
        levels: Depth of the transform, as in the layer.
        wavelet: As in the layer.
        selection: As in the layer.
        stride: As in the layer.
        keep: Positions that the code under test kept, bool (B, N). It may rank norms that are
            nearly equal differently. So its choice is checked with :func:`check_selection` and then
            taken over.
        tolerance: Relative error of norms and coefficients in the code under test.
        act: Quantizer of the kept coefficients.
        wgt: Quantizer of the weight.
        measured_rows: Quantized kept coefficients of the code under test, shape (B, k, C); see
            :meth:`Grid.quantize`.
        measured_weight: Quantized weight of the code under test.
    """
    x, weight = to_numpy(x), to_numpy(weight)[:, :, 0, 0]
    sampled = x[:, :, ::stride, ::stride]
    transform = Transform(*sampled.shape[2:], levels, wavelet)
    coefficients = transform.analysis(sampled)
    k = kept_count(transform.positions, keep_ratio)
    if selection == 'coarse':
        exact = np.broadcast_to(
            mallat_index(*transform.size, levels) < k, (len(x), transform.positions)
        )
        assert keep is None or np.array_equal(to_numpy(keep), exact), 'not the coarsest positions'
        keep = exact
    else:
        norms = (coefficients**2).sum(1)
        keep = select(norms, k) if keep is None else to_numpy(keep)
        check_selection(keep, norms, k, tolerance)
    kept = kept_quantized = coefficients * keep[:, None]
    quantized_rows = quantized_weight = None
    if act is not None:
        measured = None
        if measured_rows is not None:
            measured = np.zeros((len(x), transform.positions, x.shape[1]))
            measured[keep] = to_numpy(measured_rows).reshape(-1, x.shape[1])
            measured = measured.transpose(0, 2, 1)
        quantized_rows = act.quantize(kept, measured, tolerance)
        kept_quantized = quantized_rows.values
    if wgt is not None:
        measured = None if measured_weight is None else to_numpy(measured_weight)[:, :, 0, 0]
        quantized_weight = wgt.quantize(weight, measured, tolerance)
        weight = quantized_weight.values
    y = transform.synthesis(np.einsum('oc,bcn->bon', weight, kept_quantized))
    if bias is not None:
        y = y + to_numpy(bias)[:, None, None]
    return Reference(
        transform,
        x.shape,
        stride,
        y,
        keep,
        kept,
        kept_quantized,
        weight,
        quantized_rows,
        quantized_weight,
    )


def relative_error(actual: Tensor | np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference, relative to the largest expected magnitude."""
    actual = to_numpy(actual) if isinstance(actual, Tensor) else actual
    assert actual.shape == expected.shape, f'shape {actual.shape}, expected {expected.shape}'
    if not expected.size:
        return 0.0
    return float(np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-30))
