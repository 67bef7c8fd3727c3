"""The wavelet transform in float64, by PyWavelets and NumPy alone: A, S and their transposes.

Nothing here comes from mmwcc. A feature map (..., H, W) is transformed over its last two axes into
coefficients (..., N) in mmwcc's position order.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache, lru_cache
from math import ceil

import numpy as np
import pywt

WAVELETS = ('haar', 'db2', 'db3', 'coif1', 'bior1.3', 'bior2.2', 'sym4')
LARGEST_MATRIX = 256  # number of positions up to which A and S are built as matrices


def padded(size: int, levels: int) -> int:
    """Round up to a multiple of 2**levels."""
    return ceil(size / 2**levels) * 2**levels


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
    own = pywt.Wavelet(wavelet)
    swapped = (own.rec_lo, own.rec_hi, own.dec_lo, own.dec_hi)
    return pywt.Wavelet(f'dual {wavelet}', filter_bank=[taps[::-1] for taps in swapped])


def _analyse(maps: np.ndarray, wavelet: pywt.Wavelet, levels: int) -> np.ndarray:
    """Return the coefficients of maps in position order, by PyWavelets."""
    with warnings.catch_warnings():
        # "all coefficients will experience boundary effects"
        warnings.simplefilter('ignore', UserWarning)
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
    leading, start = coefficients.shape[:-1], (height >> levels) * (width >> levels)
    bands = []
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
