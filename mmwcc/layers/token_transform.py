"""Linear layers on the wavelet coefficients of the maps that their tokens form."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmwcc.functional import pack, unpack

from .token_maps import TokenGrid, TokenMap, fitting_levels, token_maps
from .token_rows import TokenRows

__all__ = ['TokenTransform']


class TokenTransform(TokenRows):
    """Transform what a linear layer multiplies, in training and in integers.

    Attributes:
        out_features: Length of its product.
        levels: The most levels of the transform.
        wavelet: As of :class:`WaveletCompressedLinear`, like selection.
        token_grid: The maps that the module around the layer announces, or None.
        place: Qualified name in the model that was converted, which messages give. May be empty.
    """

    out_features: int
    bias: Any
    levels: int
    wavelet: str
    selection: str
    token_grid: TokenGrid | None = None
    place: str = ''
    _warned: bool = False

    @property
    def packed_ratio(self) -> float:
        """Fraction of wavelet positions that are computed with in each map."""
        raise NotImplementedError

    def _multiplied(self, rows: Tensor, bias: Tensor | None, positions: int) -> Tensor:
        """Multiply rows, shape (B, k, C), which are some of as many positions."""
        raise NotImplementedError

    def maps(self, shape: Sequence[int]) -> list[TokenMap]:
        """Return how an input of this shape is divided, as (B, sum of tokens, in_features).

        Inputs whose maps are not known are one part without a transform.
        """
        sizes = token_maps(shape, self.token_grid) or [(1, shape[-2] if len(shape) > 1 else 1)]
        return [TokenMap(size, fitting_levels(size, self.levels)) for size in sizes]

    def read_maps(self, x: Tensor) -> list[tuple[Tensor, int]]:
        """Return what the product reads as maps (B, C, H, W), each with its number of levels.

        Tokens on no map are a map one pixel high with no level.
        """
        parts = self.maps(x.shape)
        counts = [part.tokens() for part in parts]
        tokens = _divided(x.reshape(-1, sum(counts), self.in_features), counts)
        return [
            (values.unflatten(1, part.size).permute(0, 3, 1, 2), part.levels)
            for part, values in zip(parts, tokens, strict=True)
        ]

    def _transformed(self, input: Tensor) -> Tensor:
        """Return what the layer computes for an input."""
        if not any(part.levels for part in self.maps(input.shape)):
            return self._dense(input)
        maps = self.read_maps(input)
        packed = [self._pack(x, levels) for x, levels in maps]
        rows = _joined([rows for rows, _ in packed])
        positions = sum((rows if slot is None else slot).shape[1] for rows, slot in packed)
        products = _divided(
            self._multiplied(rows, None, positions),
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
        if not token_maps(input.shape, self.token_grid) and not torch.compiler.is_compiling():
            self._warn(input)
        rows = self.rows(input)
        y = self._multiplied(rows, self.bias, rows.shape[1])
        return y.reshape(*input.shape[:-1], self.out_features)

    def _warn(self, x: Tensor) -> None:
        if self._warned:
            return
        self._warned = True
        owner = f'{type(self).__name__} of {self.place}' if self.place else type(self).__name__
        known = 'none' if self.token_grid is None else f'{list(self.token_grid.sizes)}'
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
