"""Wavelet compressed linear layer."""

from __future__ import annotations

from torch import Tensor, nn

from mmwcc.functional import check_compression, one_call
from mmwcc.registry import MODELS

from .quant_linear import CompressedLinearMixin
from .token_transform import TokenTransform
from .wavelet_settings import WaveletSettings

__all__ = ['WaveletCompressedLinear']


@MODELS.register_module()
class WaveletCompressedLinear(WaveletSettings, CompressedLinearMixin, TokenTransform, nn.Linear):
    """A linear layer on the jointly largest wavelet coefficients of the maps that its tokens form.

    It computes what :class:`WaveletCompressedConv2d` does with a 1x1 kernel. Maps (B, H, W, C) are
    transformed as they are. For tokens (B, L, C), :attr:`token_grid` says which maps they form;
    class tokens are multiplied together with the kept coefficients. Where no maps are known, as
    for queries, all tokens are multiplied, and the layer warns once. With ``keep_ratio=1`` and no
    quantizers, the layer equals ``nn.Linear``. Parameters keep their names and shapes.

    Args:
        in_features: As in :class:`torch.nn.Linear`, like all arguments up to ``dtype``.
        keep_ratio: Fraction of wavelet positions to keep in each map, in (0, 1]. It can be changed
            at any time.
        levels: The most levels of the wavelet transform, at least 1. Small maps, and maps that
            would need much padding, have fewer, see :func:`mmwcc.layers.fitting_levels`. Defaults
            to 3.
        wavelet: 'haar', or a wavelet of PyWavelets. Defaults to 'haar'.
        selection: 'energy' (largest joint energy) or 'coarse' (coarsest positions). It can be
            changed at any time. Defaults to 'energy'.
        weight_quant: Quantizer of the weight, or its config. Defaults to None, which does not
            quantize.
        act_quant: Quantizer of the kept coefficients, or its config. Defaults to None, which does
            not quantize.

    Attributes:
        token_grid: The maps that the module around the layer announces, or None. Conversion sets
            it.
        place: Qualified name in the model that was converted, which messages give. May be empty.

    Shape:
        (B, H, W, in_features) or (..., L, in_features), to the same with out_features.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If keep_ratio is not in (0, 1], levels is below 1, wavelet or selection is
            unknown, or act_quant is unsigned. In use, if the last dimension of the input is not
            in_features.

    Note:
        No gradient flows through the selection. For backward, the layer saves the kept coefficients
        and four bytes per position, not the input.

    Example:
        >>> layer = WaveletCompressedLinear(64, 256, keep_ratio=0.25)
        >>> layer(torch.rand(1, 30, 41, 64)).shape
        torch.Size([1, 30, 41, 256])
        >>> layer.token_grid = TokenGrid([(30, 41)])
        >>> layer(torch.rand(1, 30 * 41, 64)).shape
        torch.Size([1, 1230, 256])

    Reference:
        Finder et al., Wavelet Feature Maps Compression for Image-to-Image CNNs, NeurIPS 2022,
        equation (9).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device=None,
        dtype=None,
        *,
        keep_ratio: float,
        levels: int = 3,
        wavelet: str = 'haar',
        selection: str = 'energy',
        weight_quant: dict | None = None,
        act_quant: dict | None = None,
    ) -> None:
        check_compression(
            type(self).__name__,
            keep_ratio=keep_ratio,
            levels=levels,
            wavelet=wavelet,
            selection=selection,
        )
        super().__init__(in_features, out_features, bias, device, dtype)
        self._build_settings(keep_ratio, levels, wavelet, selection)
        self._build_quantizers(weight_quant, act_quant)
        self._check_coefficients()

    def _multiplied(self, rows: Tensor, bias: Tensor | None, positions: int) -> Tensor:
        return self._product(rows, self.kernel, bias, positions)

    @one_call
    def forward(self, input: Tensor) -> Tensor:
        self._check_input(input)
        return self._transformed(input)
