"""The transform of integer layers that compute on wavelet coefficients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmwcc.functional import check_compression, packed_ratio

from .integer_layer import PointwiseIntegerLayer

__all__ = ['IntegerWavelets']

if TYPE_CHECKING:  # every class that uses the mixin is such a layer
    _Layer = PointwiseIntegerLayer
else:
    _Layer = object


class IntegerWavelets(_Layer):
    """Hold keep_ratio, levels, wavelet and selection of an integer layer, which do not change."""

    keep_ratio: float
    levels: int
    wavelet: str
    selection: str

    def _build_transform(
        self, keep_ratio: float, levels: int, wavelet: str, selection: str
    ) -> None:
        check_compression(
            type(self).__name__,
            keep_ratio=keep_ratio,
            levels=levels,
            wavelet=wavelet,
            selection=selection,
        )
        self.keep_ratio, self.levels = float(keep_ratio), levels
        self.wavelet, self.selection = wavelet, selection

    @classmethod
    def _settings(cls, layer: Any) -> dict[str, Any]:
        return dict(
            super()._settings(layer),
            bias=layer.bias is not None,
            keep_ratio=layer.keep_ratio,
            levels=layer.levels,
            wavelet=layer.wavelet,
            selection=layer.selection,
        )

    @property
    def packed_ratio(self) -> float:
        """Fraction of positions that are computed with, as of the trained layer."""
        return packed_ratio(self.keep_ratio, self.act_bits, self.position_widths)

    def extra_repr(self) -> str:
        return (
            f'{super().extra_repr()}, keep_ratio={self.keep_ratio:g}, levels={self.levels}, '
            f'wavelet={self.wavelet!r}, selection={self.selection!r}'
        )
