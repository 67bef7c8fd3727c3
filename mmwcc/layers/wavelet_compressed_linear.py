"""Wavelet compressed linear layer."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmwcc.functional import check_compression, one_call, pack, unpack
from mmwcc.registry import MODELS

from .quant_linear import CompressedLinearMixin
from .token_maps import TokenGrid, TokenMap, fitting_levels, token_maps
from .wavelet_settings import WaveletSettings

__all__ = ['WaveletCompressedLinear']


@MODELS.register_module()
class WaveletCompressedLinear(WaveletSettings, CompressedLinearMixin, nn.Linear):
    """A linear layer on the jointly largest wavelet coefficients of the maps that its tokens form.

    It computes what :class:`WaveletCompressedConv2d` does with a 1x1 kernel. Maps (B, H, W, C) are
    transformed as they are. For tokens (B, L, C), :attr:`grid` says which maps they form; class
    tokens are multiplied together with the kept coefficients. Where no maps are known, as for
    queries, all tokens are multiplied, and the layer warns once. With ``keep_ratio=1`` and no
    quantizers, the layer equals ``nn.Linear``. Parameters keep their names and shapes.

    Args:
        in_features: As in :class:`torch.nn.Linear`, like all arguments up to ``dtype``.
        keep_ratio: Fraction of wavelet positions to keep in each map, in (0, 1]. It can be changed
            at any time.
        levels: The most levels of the wavelet transform, at least 1. Small maps, and maps that
            would need much padding, have fewer, see :func:`fitting_levels`. Defaults to 3.
        wavelet: 'haar', or a wavelet of PyWavelets. Defaults to 'haar'.
        selection: 'energy' (largest joint energy) or 'coarse' (coarsest positions). It can be
            changed at any time. Defaults to 'energy'.
        weight_quant: Quantizer of the weight, or its config. Defaults to None, which does not
            quantize.
        act_quant: Quantizer of the kept coefficients, or its config. Defaults to None, which does
            not quantize.

    Attributes:
        grid: The maps that the module around the layer announces, or None. Conversion sets it.
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
        and one byte per position, not the input.

    Example:
        >>> layer = WaveletCompressedLinear(64, 256, keep_ratio=0.25)
        >>> layer(torch.rand(1, 30, 41, 64)).shape
        torch.Size([1, 30, 41, 256])
        >>> layer.grid = TokenGrid([(30, 41)])
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
        self.grid: TokenGrid | None = None
        self.place = ''
        self._warned = False
        self._build_quantizers(weight_quant, act_quant)
        self._check_coefficients()

    def maps(self, shape: Sequence[int]) -> list[TokenMap]:
        """Return how an input of this shape is divided, as (B, sum of tokens, in_features).

        Inputs whose maps are not known are one part without a transform.
        """
        sizes = token_maps(shape, self.grid) or [(1, shape[-2] if len(shape) > 1 else 1)]
        return [TokenMap(size, fitting_levels(size, self.levels)) for size in sizes]

    def read_maps(self, x: Tensor) -> list[tuple[Tensor, int]]:
        """Return what the product reads as maps (B, C, H, W), each with its number of levels.

        Tokens on no map are a map one pixel high with no level.
        """
        parts = self.maps(x.shape)
        counts = [part.tokens for part in parts]
        tokens = _divided(x.reshape(-1, sum(counts), self.in_features), counts)
        return [
            (values.unflatten(1, part.size).permute(0, 3, 1, 2), part.levels)
            for part, values in zip(parts, tokens, strict=True)
        ]

    @one_call
    def forward(self, input: Tensor) -> Tensor:
        self._check_input(input)
        if not any(part.levels for part in self.maps(input.shape)):
            return self._dense(input)
        maps = self.read_maps(input)
        packed = [self._pack(x, levels) for x, levels in maps]
        rows = _joined([rows for rows, _ in packed])
        positions = sum((rows if slot is None else slot).shape[1] for rows, slot in packed)
        products = _divided(
            self._product(rows, self.kernel, positions=positions),
            [rows.shape[1] for rows, _ in packed],
        )
        y = _joined(
            [
                self._unpack(rows, slot, x.shape[2:], levels)
                for rows, (_, slot), (x, levels) in zip(products, packed, maps, strict=True)
            ]
        )
        return y.reshape(*input.shape[:-1], self.out_features)

    def _dense(self, input: Tensor) -> Tensor:
        """Multiply all tokens, and warn if that is because their maps are not known."""
        if not token_maps(input.shape, self.grid) and not torch.compiler.is_compiling():
            self._warn(input)
        y = self._product(self.rows(input), self.kernel, self.bias)
        return y.reshape(*input.shape[:-1], self.out_features)

    def _warn(self, x: Tensor) -> None:
        if self._warned:
            return
        self._warned = True
        owner = f'{type(self).__name__} of {self.place}' if self.place else type(self).__name__
        known = 'none' if self.grid is None else f'{list(self.grid.sizes)}'
        warnings.warn(
            f'{owner}: tokens must lie on maps that are known, got an input of shape '
            f'{tuple(x.shape)} and the maps {known}. It multiplies all tokens without a transform. '
            "If it never works on maps, give it the type 'mmwcc.QuantLinear' by a rule.",
            stacklevel=2,
        )

    def _pack(self, x: Tensor, levels: int) -> tuple[Tensor, Tensor | None]:
        """Return the rows to multiply, shape (B, k, C), and the slot of a transform."""
        if not levels:
            return x.flatten(2).transpose(1, 2), None
        return pack(
            x,
            keep_ratio=self.packed_ratio,
            levels=levels,
            wavelet=self.wavelet,
            selection=self.selection,
            unit_atoms=self._by_energy,
        )

    def _unpack(
        self, rows: Tensor, slot: Tensor | None, size: Sequence[int], levels: int
    ) -> Tensor:
        """Return the outputs for a map, shape (B, H * W, out_features), from products and slot."""
        if slot is None:
            return rows if self.bias is None else rows + self.bias.to(rows.dtype)
        y = unpack(
            rows,
            slot,
            self.bias,
            size=size,
            levels=levels,
            wavelet=self.wavelet,
            channels_last=True,
            unit_atoms=self._by_energy,
        )
        return y.permute(0, 2, 3, 1).flatten(1, 2)


def _divided(values: Tensor, counts: list[int]) -> Sequence[Tensor]:
    """Divide tokens, shape (B, L, C), into parts of these lengths."""
    return [values] if len(counts) == 1 else values.split(counts, dim=1)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
