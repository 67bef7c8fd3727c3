"""What compression loses on given data: energy not selected, clipped values, rounding noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmwcc.functional import bits_of_positions, pack, quantize
from mmwcc.kernels.fake_quant import grid
from mmwcc.layers import (
    CompressedLayerMixin,
    CompressedLinearMixin,
    WaveletCompressedConv2d,
    WaveletCompressedLinear,
)
from mmwcc.quantizers import UniformQuantizer

__all__ = ['LayerStats']


class LayerStats:
    """Statistics of one compressed layer, over all inputs that it is given.

    =====================  =========================================================================
    ``energy_kept``        Fraction of the input's energy that the kept positions hold. Energy is
                           the sum of squares of the wavelet coefficients, over all channels and
                           images. Only for layers that select coefficients.
    ``act_clip_alpha``     Clip of the activations.
    ``act_clipped``        Fraction of the quantized values (the kept coefficients, or the input of
                           a layer that only quantizes) that lies outside the grid: beyond the clip,
                           or below zero on an unsigned grid.
    ``act_sqnr``           Signal-to-quantization-noise ratio of the same values,
                           ``10 log10(sum v**2 / sum (v - q(v))**2)``, in dB.
    ``act_bits``           Mean number of bits of a position, those that are dropped included. Only
                           for positions with scales of their own, like the next two.
    ``act_positions``      Fraction of the positions that have bits.
    ``act_positions_w4``   Fraction of the positions that have 4 bits, and so on for each width.
    ``weight_clip_alpha``  Clip, part outside the grid and noise of the weights, after normalization
                           if the quantizer normalizes them. With one clip per output channel,
                           ``weight_clip_alpha`` is the mean clip.
    ``weight_clipped``
    ``weight_sqnr``
    =====================  =========================================================================

    Measuring changes nothing. Quantizers that are off (32 bits) or have not learned their clip are
    left out and not calibrated, and autograd records nothing. Sums are kept in float64 on the
    device of the layer.

    Example:
        >>> layer, stats = WaveletCompressedConv2d(8, 8, keep_ratio=0.25), LayerStats()
        >>> stats.update(layer, torch.ones(1, 8, 16, 16))
        >>> stats.compute()  # all energy of a constant is in a few coefficients
        {'energy_kept': 1.0}
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}  # numerator and denominator of each ratio, shape (2,)

    @torch.no_grad()
    def update(self, layer: nn.Module, x: Tensor) -> None:
        """Add the statistics of the layer for one input.

        Args:
            layer: A compressed layer that computes in floating point, the same one in every call.
            x: Its input, shape (B, C, H, W) or (C, H, W), or (..., C) of a linear layer.

        Raises:
            TypeError: If the layer is not a compressed one that computes in floating point.
        """
        if not isinstance(layer, CompressedLayerMixin):
            raise TypeError(
                'LayerStats: layer must be a compressed convolution or linear layer, got a '
                f'{type(layer).__name__}. Ask mmwcc.model_tree.compressed_layers for those of '
                'a model.'
            )
        with torch.autocast(x.device.type, enabled=False):
            values = x.detach()
            positions = None
            if isinstance(layer, WaveletCompressedConv2d):
                values = values if x.dim() == 4 else values.unsqueeze(0)
                values = values[:, :, :: layer.stride[0], :: layer.stride[1]]
                values, positions = self._add_selection(layer, [(values, layer.levels)])
            elif isinstance(layer, WaveletCompressedLinear):
                values, positions = self._add_selection(layer, layer.read_maps(values))
            elif isinstance(layer, CompressedLinearMixin):
                values = layer.rows(values)
            if layer.act_quant is not None and layer.act_quant.position_widths is not None:
                self._add_positions(layer.act_quant, values, positions)
            else:
                self._add_quantizer('act', layer.act_quant, values)
            self._add_quantizer('weight', layer.weight_quant, layer.weight)

    def compute(self) -> dict[str, float]:
        """Return the statistics by name.

        Those without a finite value are left out; a feature map of zeros, for example, has no SQNR.
        """
        if not self._sums:
            return {}
        values = {}
        for name, (part, whole) in zip(
            self._sums, torch.stack(list(self._sums.values())).tolist(), strict=True
        ):
            if name.endswith('sqnr'):
                value = 10 * math.log10(whole / part) if part and whole else math.nan
            else:
                value = part / whole if whole else math.nan
            if math.isfinite(value):
                values[name] = value
        return values

    def _add(self, name: str, part: Tensor, whole: Tensor) -> None:
        ratio = torch.stack([part.double(), whole.double()])
        self._sums[name] = self._sums[name] + ratio if name in self._sums else ratio

    def _add_selection(
        self,
        layer: WaveletCompressedConv2d | WaveletCompressedLinear,
        maps: Sequence[tuple[Tensor, int]],
    ) -> tuple[Tensor, int]:
        """Add the energy of the kept and of all coefficients.

        Returns:
            What is multiplied, shape (B, k, C), and the number of positions.
        """
        multiplied, positions = [], 0
        for x, levels in maps:
            rows = x.flatten(2).transpose(1, 2)
            if levels:
                transform: dict[str, Any] = dict(levels=levels, wavelet=layer.wavelet)
                everything, _ = pack(x, keep_ratio=1.0, **transform)
                rows, _ = pack(
                    x, keep_ratio=layer.packed_ratio, selection=layer.selection, **transform
                )
                self._add('energy_kept', _energy(rows), _energy(everything))
                positions += everything.shape[1]
            else:
                positions += rows.shape[1]
            multiplied.append(rows)
        return torch.cat(multiplied, dim=1), positions

    def _add_positions(
        self, quantizer: UniformQuantizer, values: Tensor, positions: int | None
    ) -> None:
        """Add the bits of positions, the share that has any, and the noise of their rounding."""
        if not quantizer.is_on or not quantizer.is_settled:
            return
        values = values.float()
        _, signed, spec = quantizer.arguments(values, positions)
        bits = bits_of_positions(values, spec)
        everything = bits.new_tensor(len(bits) * (positions or bits.shape[1]), dtype=torch.int64)
        self._add('act_bits', bits.sum(dtype=torch.int64), everything)
        self._add('act_positions', (bits > 0).sum(), everything)
        for width in filter(None, spec.widths):
            self._add(f'act_positions_w{width}', (bits == width).sum(), everything)
        noise = quantize(values, quantizer.clip_alpha.detach().float(), signed, spec) - values
        self._add('act_sqnr', _energy(noise), _energy(values))

    def _add_quantizer(self, role: str, quantizer: UniformQuantizer | None, values: Tensor) -> None:
        if quantizer is None or not quantizer.is_on or not quantizer.is_settled:
            return
        values = quantizer.prepare(values.detach()).float()
        spec = quantizer.spec(values)._replace(normalize='')  # prepare has already normalized
        clip_alpha = quantizer.clip_alpha.detach().float()
        clip = spec.spread(clip_alpha, values)
        _, low, high = grid(values.dtype, clip, quantizer.signed, spec.bits, spec.symmetric)
        outside = (values > clip) | (values < low / high * clip)
        noise = quantize(values, clip_alpha, quantizer.signed, spec) - values
        self._add(f'{role}_clip_alpha', clip_alpha.sum(), clip.new_tensor(clip_alpha.numel()))
        self._add(
            f'{role}_clipped',
            outside.sum(),
            outside.new_tensor(outside.numel(), dtype=torch.float64),
        )
        self._add(f'{role}_sqnr', _energy(noise), _energy(values))


def _energy(values: Tensor) -> Tensor:
    return values.double().square().sum()
