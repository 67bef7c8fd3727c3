"""The settings that all wavelet compressed layers have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from mmwcc.functional import check_keep_ratio, check_selection
from mmwcc.quantizers import UniformQuantizer

__all__ = ['WaveletSettings']

if TYPE_CHECKING:  # every class that uses the mixin is a module
    _Module = nn.Module
else:
    _Module = object


class WaveletSettings(_Module):
    """Hold keep_ratio, levels, wavelet and selection of a layer, and check them.

    Attributes:
        levels: Depth of the wavelet transform.
        wavelet: 'haar', or a wavelet of PyWavelets.
    """

    levels: int
    wavelet: str
    act_quant: UniformQuantizer | None

    def _build_settings(self, keep_ratio: float, levels: int, wavelet: str, selection: str) -> None:
        self.keep_ratio, self.selection = keep_ratio, selection
        self.levels, self.wavelet = levels, wavelet

    @property
    def keep_ratio(self) -> float:
        """Fraction of wavelet positions to keep in each image, in (0, 1]."""
        return self._keep_ratio

    @keep_ratio.setter
    def keep_ratio(self, keep_ratio: float) -> None:
        check_keep_ratio(type(self).__name__, keep_ratio)
        self._keep_ratio = float(keep_ratio)

    @property
    def selection(self) -> str:
        """Selection policy, one of :data:`mmwcc.functional.SELECTIONS`."""
        return self._selection

    @selection.setter
    def selection(self, selection: str) -> None:
        check_selection(type(self).__name__, selection)
        self._selection = selection

    @property
    def packed_ratio(self) -> float:
        """Fraction of wavelet positions that are computed with in each image, in (0, 1].

        It is below keep_ratio if the quantizer has too few bits for that many positions.
        """
        if self.act_quant is None:
            return self.keep_ratio
        return min(self.keep_ratio, self.act_quant.largest_share)

    def _check_coefficients(self) -> None:
        """Refuse a quantizer that does not suit coefficients, or not as many as are kept."""
        quantizer = self.act_quant
        if quantizer is None:
            return
        quantizer.expect_coefficients(type(self).__name__)
        bits, widths = quantizer.bits, quantizer.position_widths
        if widths and quantizer.is_on and bits > self.keep_ratio * widths[-1]:
            raise ValueError(
                f'{type(self).__name__}: act_quant must have at most keep_ratio times its largest '
                f'width as bits, their mean over all positions, got bits={bits:g} for keep_ratio='
                f'{self.keep_ratio:g} and widths {widths}. Use keep_ratio=1.0, so that the budget '
                'of bits decides how many positions are kept.'
            )

    def extra_repr(self) -> str:
        return (
            f'{super().extra_repr()}, keep_ratio={self.keep_ratio:g}, levels={self.levels}, '
            f'wavelet={self.wavelet!r}, selection={self.selection!r}'
        )
