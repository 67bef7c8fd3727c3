"""Why the gain of a compression is small, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mmwcc.model_tree import FULL_PRECISION

if TYPE_CHECKING:
    from .gain import Gain

__all__ = ['why_small']

_SMALL = 0.1  # wavelets that save a smaller share of the MACs save little
_LARGE = 0.5  # a larger share of the bit operations in full precision is much


def why_small(gain: Gain) -> Iterator[str]:
    """Yield sentences that say why a gain is small and what helps; none if it is not small."""
    if gain.dense_macs:
        yield from _small_saving(gain)
        yield from _much_dense(gain)
        yield from _tiny_maps(gain)


def _small_saving(gain: Gain) -> Iterator[str]:
    """Say so if wavelets save little."""
    wavelets = [layer for layer in gain.cost.layers if layer.kind == 'wcc']
    ratios = [layer.packed_ratio or 1.0 for layer in wavelets]
    saved = 1 - gain.cost.total.macs / gain.dense_macs
    if not ratios or min(ratios) == 1 or saved >= _SMALL:
        return
    if saved < 0:
        yield f'Wavelets cost more than they save: the MACs grow by {-saved:.1%}.'
    else:
        yield f'Wavelets save only {saved:.1%} of the MACs.'
    share = gain.parts[0].macs / gain.dense_macs if gain.parts else 0.0
    if gain.reached > share:
        by_energy = any(layer.widths for layer in wavelets)
        yield f'Lower {"the bits of act_quant" if by_energy else "keep_ratio"} to save more.'
        return
    kind = gain.parts[0].kind
    yield f'They reach {gain.reached:.1%} of them; {kind} without wavelets has {share:.0%}.'
    if kind == 'Conv2d 1x1':
        yield 'Name fewer of these layers in keep_dense and rules.'
    elif kind.startswith('Conv2d'):
        yield (
            'Wavelets compress 1x1 convolutions: add separate=dict() to the compression dictionary '
            'to split k x k convolutions into depthwise and 1x1 ones, and train again.'
        )
    elif kind == 'Linear':
        yield (
            "linear=dict(type='mmwcc.WaveletCompressedLinear', keep_ratio=0.25) in the compression "
            'dictionary compresses those on maps.'
        )
    if _is_quantized(gain):
        yield (
            'A preset without wavelets, such as quant_w8a8, saves nearly as many bit operations.'
        )


def _is_quantized(gain: Gain) -> bool:
    return any(
        min(layer.weight_bits, layer.act_bits) < FULL_PRECISION for layer in gain.cost.layers
    )


def _much_dense(gain: Gain) -> Iterator[str]:
    """Say so if most bit operations stay in full precision although layers are quantized."""
    total = gain.cost.total.total_bops
    share = sum(part.bops for part in gain.dense_parts) / total
    if share <= _LARGE or not _is_quantized(gain):
        return
    part = gain.dense_parts[0]
    yield (
        f'{share:.0%} of the remaining bit operations are in full precision, most of them in '
        f'{part.kind} ({part.bops / total:.0%}).'
    )
    if 'Conv2d' in part.kind:
        yield 'Name fewer layers in keep_dense to quantize these convolutions.'
    elif part.kind == 'Linear':
        yield (
            "linear=dict(type='mmwcc.QuantLinear') in the compression dictionary quantizes those "
            'that keep_dense does not name.'
        )
    else:
        yield (
            'Only nn.Conv2d and nn.Linear are compressed, so that no setting changes this. A '
            'network with more of its operations in these layers gains more.'
        )


def _tiny_maps(gain: Gain) -> Iterator[str]:
    """Say which wavelet layers work on maps smaller than a patch."""
    if not gain.tiny:
        return
    count, pattern = len(gain.tiny), '|'.join(map(re.escape, gain.tiny))
    yield (
        f'{count} wavelet {"layer has" if count == 1 else "layers have"} maps smaller than a patch '
        f'on this input, which take up to {max(gain.tiny.values()):.1f} times the MACs of the '
        'dense layer. If images are always of this size, add '
        f"dict(pattern={pattern!r}, type='mmwcc.QuantConv2d') to the rules of the compression "
        'dictionary.'
    )
