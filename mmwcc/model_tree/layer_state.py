"""How a layer is compressed, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

__all__ = ['FULL_PRECISION', 'LayerState', 'set_layer_state', 'width_obstacle']

FULL_PRECISION = 32
"""The number of bits that stands for no quantization."""

_WIDEST_INTEGER = 8
_BITS = ('weight_bits', 'act_bits')


def _number(bits: float) -> float:
    """Return bits as an integer, or as a float if they are the mean of several widths."""
    return int(bits) if bits == int(bits) else float(bits)


_PLAIN: dict[str, Any] = dict(
    keep_ratio=float,
    selection=str,
    wavelet=str,
    levels=int,
    weight_bits=int,
    act_bits=_number,
    widths=list,
)


@dataclass(frozen=True)
class LayerState:
    """How a layer is compressed at this moment; :meth:`of` reads it.

    Attributes:
        kind: Name of the class.
        keep_ratio: Fraction of wavelet positions kept, or None if there is no transform.
        selection: How these positions are chosen, or None if there is no transform.
        wavelet: Name of the wavelet, or None if there is no transform.
        levels: Depth of the transform, or None if there is no transform.
        weight_bits: Bits of the weights, 32 if they are not quantized.
        act_bits: Bits of the values that the product reads, 32 if they are not quantized. Their
            mean over all positions if positions have different widths.
        widths: Bits that a position can have, if each has a scale of its own; () if all have
            ``act_bits``. None if one scale serves all positions.
        quantizers: Which of 'weight_bits' and 'act_bits' a quantizer sets. Integer layers have bits
            but no quantizers: their bits are built into the weights and cannot change.

    Example:
        >>> from mmwcc.layers import WaveletCompressedConv2d
        >>> state = LayerState.of(WaveletCompressedConv2d(8, 8, keep_ratio=0.25))
        >>> state.keep_ratio, state.act_bits
        (0.25, 32)
    """

    kind: str
    keep_ratio: float | None = None
    selection: str | None = None
    wavelet: str | None = None
    levels: int | None = None
    weight_bits: int = FULL_PRECISION
    act_bits: float = FULL_PRECISION
    widths: tuple[int, ...] | None = None
    quantizers: tuple[str, ...] = ()

    @classmethod
    def of(cls, layer: nn.Module) -> LayerState:
        """Read the state of a layer, which may be dense, trainable, folded or integer."""
        transform: dict[str, Any] = {
            key: getattr(layer, key, None)
            for key in ('keep_ratio', 'selection', 'wavelet', 'levels')
        }
        bits: dict[str, Any] = {
            key: getattr(_quantizer(layer, key), 'bits', getattr(layer, key, FULL_PRECISION))
            for key in _BITS
        }
        widths = getattr(_quantizer(layer, 'act_bits') or layer, 'position_widths', None)
        quantizers = tuple(key for key in _BITS if hasattr(_quantizer(layer, key), 'bits'))
        return cls(type(layer).__name__, **transform, **bits, widths=widths, quantizers=quantizers)

    @property
    def quantities(self) -> dict[str, Any]:
        """Bits and keep ratio. Together with the geometry, they determine the cost of a layer."""
        return dict(
            weight_bits=self.weight_bits,
            act_bits=self.act_bits,
            keep_ratio=self.keep_ratio,
            widths=self.widths,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data as checkpoints record it: ``type`` and the values the layer has."""
        own = {
            key: getattr(self, key) for key in _PLAIN if key not in _BITS or key in self.quantizers
        }
        return {
            'type': self.kind,
            **{key: _PLAIN[key](value) for key, value in own.items() if value is not None},
        }

    def has(self, quantity: str) -> bool:
        """Tell whether the layer has a quantity, for example 'keep_ratio', that can be changed."""
        return quantity in self.to_dict()

    def under(self, ceilings: Mapping[str, float]) -> LayerState:
        """Return the state under a schedule: for each quantity, the larger of scheduled and own.

        Args:
            ceilings: Scheduled values by quantity. Quantities that the layer does not have are
                ignored.

        Example:
            >>> built = LayerState('QuantConv2d', act_bits=8, quantizers=('act_bits', ))
            >>> built.under(dict(act_bits=16, keep_ratio=0.5)).act_bits
            16
        """
        return replace(
            self,
            **{
                quantity: max(getattr(self, quantity), value)
                for quantity, value in ceilings.items()
                if self.has(quantity)
            },
        )


def _quantizer(layer: nn.Module, bits: str) -> Any:
    """Return the quantizer that sets 'weight_bits' or 'act_bits' of a layer, if there is one."""
    return getattr(layer, bits.replace('_bits', '_quant'), None)


def set_layer_state(layer: Any, values: Mapping[str, float]) -> bool:
    """Set keep_ratio and bits of a layer where they differ from what it has.

    Args:
        layer: A compressed layer.
        values: New values by quantity. The layer must have these quantities.

    Returns:
        Whether anything changed.
    """
    state = LayerState.of(layer)
    changed = {
        quantity: value for quantity, value in values.items() if getattr(state, quantity) != value
    }
    for quantity, value in changed.items():
        if quantity == 'keep_ratio':
            layer.keep_ratio = value
        else:
            _quantizer(layer, quantity).bits = value
    return bool(changed)


def width_obstacle(layer: nn.Module) -> str:
    """Return why the weights or inputs of a layer do not fit into integers of 8 bits, or ''."""
    state = LayerState.of(layer)
    for bits, what in ((state.weight_bits, 'weights'), (state.act_bits, 'activations')):
        if bits > _WIDEST_INTEGER:
            return f'{what} not quantized' if bits == FULL_PRECISION else f'{what} of {bits:g} bits'
    return ''
