"""The settings that all wavelet compressed layers have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from mmwcc.functional import check_keep_ratio, check_selection

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

    def extra_repr(self) -> str:
        return (
            f'{super().extra_repr()}, keep_ratio={self.keep_ratio:g}, levels={self.levels}, '
            f'wavelet={self.wavelet!r}, selection={self.selection!r}'
        )
